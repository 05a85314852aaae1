"""What checks, repairs, converts, describes and draws datasets: a command each.

verify.py         ingest verify: shard_check.py says what is damaged, repair.py packs it again
convert.py        ingest convert
inspection.py     ingest inspect: classes, sizes, duplicates; class_mixing.py, contact_sheet.py
synthesize.py     ingest synth
"""
