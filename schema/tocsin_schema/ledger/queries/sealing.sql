-- name: read_database_unique_id
SELECT value FROM settings WHERE key = 'DatabaseUniqueID';
