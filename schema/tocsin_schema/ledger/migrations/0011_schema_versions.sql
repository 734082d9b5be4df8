-- Which schema each worker was written for, so that nothing is taken away that one of them still needs.

ALTER TABLE workers ADD COLUMN schema_version integer CHECK (schema_version > 0);
COMMENT ON COLUMN workers.schema_version IS
    'Number of the newest migration that the worker''s release has. NULL: a release from before this column.';
