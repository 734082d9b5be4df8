-- name: lock_tenant
-- The one row of a name, made if it is missing; locked, so that two that meet here take turns.
INSERT INTO tenants (name)
VALUES (%(name)s)
ON CONFLICT (name) DO UPDATE SET name = EXCLUDED.name
RETURNING id;

-- name: write_tenant_limit
-- A person has looked: what rested because of the old limit need not any longer.
UPDATE tenants
SET external_recipients_per_day = %(limit)s, parked_until = NULL, parked_reason = NULL,
    kept_for_urgent_until = NULL, kept_for_urgent_reason = NULL
WHERE id = %(tenant_id)s;

-- name: write_tenant_of_mailbox
UPDATE mailboxes SET tenant_id = %(tenant_id)s WHERE id = %(mailbox_id)s;

-- name: tenant_of_mailbox
SELECT tenant_id FROM mailboxes WHERE id = %(mailbox_id)s;

-- name: forget_unused_tenants
DELETE FROM tenants t WHERE NOT EXISTS (SELECT FROM mailboxes m WHERE m.tenant_id = t.id);
