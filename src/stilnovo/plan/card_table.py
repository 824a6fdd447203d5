"""Sheets of today's cards, one a line: what `cards.py` makes its table of.

Columns: name; TFLOP/s of dense products in bf16 (fp16 before Ampere) with sums in fp32; GiB of memory; GB/s of it; PCI Express,
generation and lanes; compute capability. No figure counts sparsity. Sources, all NVIDIA's: the architecture papers of Turing
(2018), GA102 (2020), Ada (2022), RTX Blackwell (2025) for GeForce cards (a GeForce card's tensor cores sum in fp32 at half their
rate, which is twice its plain fp32 rate); the data sheets of V100, T4, A2, A10, A16, A30, A40, A100, L4, L40, L40S, H100, H200,
B200 and of the RTX cards for workstations (their "tensor performance" is of sparse products: a half of it in 16 bits, an
eighth of the 4-bit figure of Blackwell's). A laptop's chip is taken at its highest boost; many are held lower.
"""

ROWS = """
rtx-2060 25.8 6 336 3x16 7.5
rtx-2060-super 28.7 8 448 3x16 7.5
rtx-2070 29.9 8 448 3x16 7.5
rtx-2070-super 36.3 8 448 3x16 7.5
rtx-2080 40.3 8 448 3x16 7.5
rtx-2080-super 44.6 8 496 3x16 7.5
rtx-2080-ti 53.8 11 616 3x16 7.5
titan-rtx 130.5 24 672 3x16 7.5
quadro-rtx-4000 57.0 8 416 3x16 7.5
quadro-rtx-5000 89.2 16 448 3x16 7.5
quadro-rtx-6000 130.5 24 672 3x16 7.5
quadro-rtx-8000 130.5 48 672 3x16 7.5
rtx-3050 18.2 8 224 4x8 8.6
rtx-3060 25.5 12 360 4x16 8.6
rtx-3060-ti 32.4 8 448 4x16 8.6
rtx-3070 40.6 8 448 4x16 8.6
rtx-3070-ti 43.5 8 608 4x16 8.6
rtx-3080 59.5 10 760 4x16 8.6
rtx-3080-ti 68.2 12 912 4x16 8.6
rtx-3090 71.0 24 936 4x16 8.6
rtx-3090-ti 80.0 24 1008 4x16 8.6
rtx-3050-laptop 14.3 4 192 4x8 8.6
rtx-3050-ti-laptop 17.4 4 192 4x8 8.6
rtx-3060-laptop 26.2 6 336 4x16 8.6
rtx-3070-laptop 33.2 8 448 4x16 8.6
rtx-3070-ti-laptop 34.1 8 448 4x16 8.6
rtx-3080-laptop 42.0 16 448 4x16 8.6
rtx-3080-ti-laptop 47.2 16 512 4x16 8.6
rtx-a2000 31.9 12 288 4x16 8.6
rtx-a4000 76.7 16 448 4x16 8.6
rtx-a4500 94.6 20 640 4x16 8.6
rtx-a5000 111.1 24 768 4x16 8.6
rtx-a5500 136.4 24 768 4x16 8.6
rtx-a6000 154.8 48 768 4x16 8.6
rtx-4060 30.2 8 272 4x8 8.9
rtx-4060-ti 44.1 8 288 4x8 8.9
rtx-4060-ti-16gb 44.1 16 288 4x8 8.9
rtx-4070 58.3 12 504 4x16 8.9
rtx-4070-super 71.0 12 504 4x16 8.9
rtx-4070-ti 80.2 12 504 4x16 8.9
rtx-4070-ti-super 88.2 16 672 4x16 8.9
rtx-4080 97.5 16 717 4x16 8.9
rtx-4080-super 104.4 16 736 4x16 8.9
rtx-4090 165.2 24 1008 4x16 8.9
rtx-4090-d 147.1 24 1008 4x16 8.9
rtx-4050-laptop 24.3 6 192 4x8 8.9
rtx-4060-laptop 29.1 8 256 4x8 8.9
rtx-4070-laptop 40.1 8 256 4x8 8.9
rtx-4080-laptop 67.7 12 432 4x16 8.9
rtx-4090-laptop 79.4 16 576 4x16 8.9
rtx-2000-ada 48.0 16 224 4x8 8.9
rtx-4000-ada 106.9 20 360 4x16 8.9
rtx-4500-ada 158.5 24 432 4x16 8.9
rtx-5000-ada 261.1 32 576 4x16 8.9
rtx-6000-ada 364.2 48 960 4x16 8.9
rtx-5050 26.3 8 320 5x8 12.0
rtx-5060 38.4 8 448 5x8 12.0
rtx-5060-ti 47.4 8 448 5x8 12.0
rtx-5060-ti-16gb 47.4 16 448 5x8 12.0
rtx-5070 61.7 12 672 5x16 12.0
rtx-5070-ti 87.9 16 896 5x16 12.0
rtx-5080 112.6 16 960 5x16 12.0
rtx-5090 209.5 32 1792 5x16 12.0
rtx-5090-d 209.5 32 1792 5x16 12.0
rtx-5050-laptop 15.4 8 384 5x8 12.0
rtx-5060-laptop 19.4 8 384 5x8 12.0
rtx-5070-laptop 26.3 8 384 5x8 12.0
rtx-5070-ti-laptop 34.1 12 672 5x16 12.0
rtx-5080-laptop 46.1 16 896 5x16 12.0
rtx-5090-laptop 63.6 24 896 5x16 12.0
rtx-pro-2000-blackwell 68.1 16 288 5x8 12.0
rtx-pro-4000-blackwell 147.2 24 672 5x16 12.0
rtx-pro-4500-blackwell 210.9 32 896 5x16 12.0
rtx-pro-5000-blackwell 258.0 48 1344 5x16 12.0
rtx-pro-6000-blackwell 503.8 96 1792 5x16 12.0
rtx-pro-6000-blackwell-maxq 438.9 96 1792 5x16 12.0
v100-sxm2-16gb 125 16 900 3x16 7.0
v100-sxm2-32gb 125 32 900 3x16 7.0
v100-pcie-16gb 112 16 900 3x16 7.0
v100-pcie-32gb 112 32 900 3x16 7.0
t4 65 16 320 3x16 7.5
a2 18 16 200 4x8 8.6
a10 125 24 600 4x16 8.6
a10g 70 24 600 4x16 8.6
a16 17.9 16 200 4x16 8.6
a30 165 24 933 4x16 8.0
a40 149.7 48 696 4x16 8.6
a100-40gb 312 40 1555 4x16 8.0
a100-80gb 312 80 2039 4x16 8.0
a100-80gb-pcie 312 80 1935 4x16 8.0
l4 121 24 300 4x16 8.9
l40 181 48 864 4x16 8.9
l40s 362 48 864 4x16 8.9
h100 989 80 3350 5x16 9.0
h100-pcie 756 80 2000 5x16 9.0
h100-nvl 835 94 3938 5x16 9.0
h20 148 96 4000 5x16 9.0
h200 989 141 4800 5x16 9.0
h200-nvl 835 141 4800 5x16 9.0
gh200 989 96 4000 5x16 9.0
b200 2250 180 8000 5x16 10.0
"""
