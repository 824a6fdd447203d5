"""Statistics: estimates with intervals, paired tests, and the sequential stopping rule. numpy only."""
