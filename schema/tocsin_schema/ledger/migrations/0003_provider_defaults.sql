-- What the providers publish of their endpoints and limits. Sources beside every row.

INSERT INTO sending_profile_defaults
    (provider, title, host, port, tls, auth, batch_size, connections, messages_per_minute, recipients_per_day, source)
VALUES
    ('microsoft365', 'Microsoft 365 (Exchange Online)', 'smtp.office365.com', 587, 'starttls', 'oauth',
     50, 3, 30, 10000,
     'learn.microsoft.com: Exchange Online limits, SMTP submission improvements (3 connections, 30 messages a minute, 10,000 recipients a day)'),
    ('google', 'Google Workspace', 'smtp.gmail.com', 587, 'starttls', 'oauth',
     50, 5, NULL, 10000,
     'support.google.com/a/answer/166852 (100 recipients a message by SMTP, 10,000 recipients a day); connections: cautious'),
    ('ses', 'Amazon SES', 'email-smtp.us-east-1.amazonaws.com', 587, 'starttls', 'basic',
     50, 10, NULL, NULL,
     'docs.aws.amazon.com/ses: quotas (50 recipients a message; rate and daily quota are the account''s own)'),
    ('custom', 'Any other server', NULL, 587, 'starttls', 'none',
     50, 10, NULL, NULL,
     'RFC 5321 section 4.5.3.1.8 asks servers for 100 recipients; 50 is safe everywhere');

INSERT INTO oauth_profile_defaults
    (provider, title, grant_type, token_endpoint, scope, wants_tenant, guid_ids, sending_defaults)
VALUES
    ('microsoft365', 'Microsoft 365', 'client_credentials',
     'https://login.microsoftonline.com/{tenantId}/oauth2/v2.0/token', 'https://outlook.office365.com/.default',
     true, true, 'microsoft365'),
    ('google', 'Google Workspace', 'jwt_bearer',
     'https://oauth2.googleapis.com/token', 'https://mail.google.com/', false, false, 'google'),
    ('custom', 'Custom', 'client_credentials', NULL, NULL, false, false, 'custom');

ALTER TABLE oauth_profile_defaults
    ADD FOREIGN KEY (sending_defaults) REFERENCES sending_profile_defaults (provider);
