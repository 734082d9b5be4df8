-- name: insert_template
INSERT INTO email_templates (name, subject, text_body, html_body, from_name, reply_to_address)
VALUES (%(name)s, %(subject)s, %(text_body)s, %(html_body)s, %(from_name)s, %(reply_to_address)s);

-- name: list_templates
SELECT t.id, t.name, t.version, t.subject, t.text_body, t.html_body, t.from_name, t.reply_to_address,
       t.created_at, t.updated_at
FROM email_templates t
ORDER BY t.name;

-- name: read_template
SELECT t.id, t.name, t.version, t.subject, t.text_body, t.html_body, t.from_name, t.reply_to_address,
       t.created_at, t.updated_at
FROM email_templates t
WHERE t.name = %(name)s;

-- name: read_template_version
SELECT t.id, t.name, v.version, v.subject, v.text_body, v.html_body, v.from_name, v.reply_to_address,
       t.created_at, v.created_at AS updated_at
FROM email_templates t
JOIN email_template_versions v ON v.template_id = t.id
WHERE t.name = %(name)s AND v.version = %(version)s;

-- name: lock_template
SELECT id FROM email_templates WHERE name = %(name)s FOR UPDATE;

-- name: write_template
-- A trigger keeps the new version beside the old ones.
UPDATE email_templates
SET version = version + 1, subject = %(subject)s, text_body = %(text_body)s, html_body = %(html_body)s,
    from_name = %(from_name)s, reply_to_address = %(reply_to_address)s, updated_at = now()
WHERE id = %(id)s
RETURNING version;

-- name: count_unfinished_jobs
SELECT count(*)
FROM jobs
WHERE template_id = %(id)s AND state IN ('receiving', 'running', 'paused');

-- name: delete_template
DELETE FROM email_templates WHERE id = %(id)s;
