"""Proof that no fault is silent: each known one is put into a short real run on purpose, and must raise an alarm.

`faults_*` are the faults, `short_run` plays, `certify` goes through all of them, `report` is the table and the page.
Nothing here is reachable from a configuration: a fault is put in by replacing a function, in this process or in the
replica's, for the time of one short run.
"""
