-- name: read_database_unique_id
SELECT value FROM settings WHERE key = 'DatabaseUniqueID';

-- name: write_key_check
-- The first key that is used with this ledger leaves its mark.
INSERT INTO settings (key, sealed_value, row_id) VALUES ('MasterKeyCheck', %(sealed_value)s, %(row_id)s)
ON CONFLICT (key) DO NOTHING;

-- name: read_key_check
SELECT row_id, sealed_value FROM settings WHERE key = 'MasterKeyCheck';

-- name: read_retirement
SELECT retired_at FROM master_keys WHERE id = %(key_id)s AND retired_at IS NOT NULL;
