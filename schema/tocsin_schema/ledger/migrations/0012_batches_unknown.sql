-- Those whose fate a person has to settle, however many others there are.

CREATE INDEX batches_unknown ON batches (job_number) WHERE unknown > 0;
