// The door for tests: what a person or an administrator would do elsewhere, and what came in.

import { counts, issued, now, reset, settings, tables } from './state.mjs';
import { resourceOf } from './tokens.mjs';

const REVOCABLE = ['AccessToken', 'RefreshToken', 'DeviceCode'];

export const administration = (provider) => ({
  reset,

  settings: (changes) => Object.assign(settings, changes),

  counts: () => [...counts.values()],

  'user-codes': () => [...tables.get('DeviceCode')?.values() ?? []]
    .filter((code) => !code.accountId && !code.error && code.exp > now())
    .map((code) => code.userCode.replace(/^(.{4})/, '$1-')),

  async device({ user_code: userCode, account, action, error }) {
    const code = await provider.DeviceCode.findByUserCode(userCode.toUpperCase().replace(/\W/g, ''));
    if (!code) throw new Error(`there is no open device code ${userCode}`);
    switch (action) {
      case 'approve':
        Object.assign(code, await grantTo(provider, code.clientId, account, code.params.scope));
        return void await code.save();
      case 'deny':
        Object.assign(code, { error, errorDescription: 'denied by a test' });
        return void await code.save();
      case 'expire':
        tables.get('DeviceCode').get(code.jti).exp = now() - 1;
        return undefined;
      default:
        throw new Error(`there is no action ${action}`);
    }
  },

  async 'refresh-token'({ client_id: clientId, account, scope }) {
    const client = await provider.Client.find(clientId);
    const granted = await grantTo(provider, clientId, account, scope);
    const token = new provider.RefreshToken({ client, gty: 'authorization_code', ...granted });
    return { refresh_token: await token.save() };
  },

  async revoke({ account }) {
    for (const [grantId, grant] of tables.get('Grant') ?? []) {
      if (grant.accountId === account) {
        for (const kind of REVOCABLE) await provider[kind].revokeByGrantId(grantId);
        tables.get('Grant').delete(grantId);
      }
    }
    for (const [token, { accountId }] of issued) if (accountId === account) issued.delete(token);
  },
});

async function grantTo(provider, clientId, account, scope) {
  const grant = new provider.Grant({ accountId: account, clientId });
  const resource = scope.split(' ').map(resourceOf).find(Boolean);
  grant.addOIDCScope(scope);
  if (resource) grant.addResourceScope(resource, scope);
  return { accountId: account, grantId: await grant.save(), scope, resource, authTime: now() };
}
