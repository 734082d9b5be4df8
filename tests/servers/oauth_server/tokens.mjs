// What access tokens are for, whose they are, and what they say.

import { errors } from 'oidc-provider';

import { config, settings } from './state.mjs';

// Microsoft names the resource within the scope, where RFC 8707 has a parameter of its own. These tokens are JWTs.
// Google's scope and our own have no resource, and their tokens are opaque.
export const resourceOf = (scope) => (/\/(\.default|SMTP\.Send)$/.test(scope) ? new URL(scope).origin : undefined);

export function resourceOfRequest(ctx) {
  const asked = ctx.oidc.params.scope?.split(' ') ?? [];
  const unknown = asked.filter((scope) => !config.scopes.includes(scope));
  if (unknown.length) throw new errors.InvalidScope('unknown scope', unknown.join(' '));
  const resources = new Set(asked.map(resourceOf).filter(Boolean));
  if (resources.size > 1) throw new errors.InvalidScope('scopes of more than one resource', asked.join(' '));
  return [...resources][0];
}

export const resourceServer = (resource) => ({
  audience: resource,
  scope: config.scopes.filter((scope) => resourceOf(scope) === resource).join(' '),
  accessTokenFormat: 'jwt',
});

// A client's own token has no account: tests say whose mailbox such a client may use.
export const accountOf = (token) => token.accountId ?? settings.mailboxes[token.clientId];

// JWTs carry what Microsoft's do; opaque tokens what a mail server wants to read at the introspection endpoint.
export function extraTokenClaims(ctx, token) {
  if (!token.aud) return { username: accountOf(token), email: accountOf(token) };
  const { accountId: upn, clientId: appid } = token;
  const granted = upn ? { upn, scp: token.scope.replaceAll(`${token.aud}/`, '') } : { roles: settings.roles };
  return { tid: config.tenant, appid, ver: '2.0', ...granted };
}
