"""What is kept of ended runs in BigQuery: the tables ``org_meta_*`` of each organisation's dataset."""
