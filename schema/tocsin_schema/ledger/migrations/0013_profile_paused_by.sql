-- Who paused a sending profile by hand, as it is kept of jobs and halts.

ALTER TABLE sending_profiles
    ADD COLUMN paused_by_kind text CHECK (paused_by_kind IN ('login', 'api_key')),
    ADD COLUMN paused_by      text,
    ADD CONSTRAINT sending_profiles_paused_by_kind_known CHECK ((paused_by IS NULL) = (paused_by_kind IS NULL)),
    ADD CONSTRAINT sending_profiles_paused_by_hand
        CHECK (paused_by IS NULL OR pause_cause IS NOT DISTINCT FROM 'by_hand');
COMMENT ON COLUMN sending_profiles.paused_by IS
    'A login name or the name of an API key; NULL where Tocsin itself paused it, or a release from before this column.';

CREATE OR REPLACE FUNCTION complete_pause() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.paused_at IS NULL THEN
        NEW.pause_cause := NULL;
        NEW.probe_at := NULL;
    ELSIF NEW.pause_cause IS NULL THEN
        NEW.pause_cause := 'credentials';
    END IF;
    IF NEW.pause_cause IS DISTINCT FROM 'by_hand' THEN
        NEW.paused_by_kind := NULL;
        NEW.paused_by := NULL;
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION complete_pause IS
    'Workers and commands of releases before, which run on beside this schema for a while, know no causes, or not who paused.';
