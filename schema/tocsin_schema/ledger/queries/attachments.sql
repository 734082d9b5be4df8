-- name: insert_attachment
INSERT INTO attachments (job_number, position, filename, content_type, content)
VALUES (%(job_number)s, %(position)s, %(filename)s, %(content_type)s, %(content)s);

-- name: read_attachments
SELECT filename, content_type, content FROM attachments WHERE job_number = %(job_number)s ORDER BY position;
