"""Read TEI."""
