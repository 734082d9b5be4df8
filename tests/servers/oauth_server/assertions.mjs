// Two uses of assertions that oidc-provider does not know: the JWT bearer grant, and foreign issuers.

import { createPublicKey } from 'node:crypto';

import { jwtVerify } from 'jose';
import { errors } from 'oidc-provider';

import { config, settings } from './state.mjs';

export const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const MAX_SECONDS = 3600;

// Microsoft takes the assertion of a foreign issuer in place of a client's own (workload identity federation). It is
// checked here, and the client then comes in with a secret that only the driver and this process know.
export async function exchangeForeignAssertion(form) {
  const { client_id: id, secret, public_key: key, ...expected } = config.federation;
  if (form.client_id !== id || !form.client_assertion) return;
  const options = { ...expected, algorithms: ['RS256'], requiredClaims: ['exp'] };
  const trusted = await jwtVerify(form.client_assertion, createPublicKey(key), options)
    .catch((error) => console.error(`foreign assertion: ${error.message}`));
  delete form.client_assertion;
  delete form.client_assertion_type;
  form.client_secret = trusted ? secret : 'not trusted';
}

// RFC 7523, section 2.1, with Google's refusals.
export const jwtBearer = (provider, tokenUrls) => async (ctx) => {
  const { client, params } = ctx.oidc;
  const claims = await verified(params.assertion ?? '', client.clientId, tokenUrls);
  params.scope ??= claims.scope;
  if (!params.scope) throw refusal(400, 'invalid_scope', 'Invalid OAuth scope or ID audience provided.');
  const granted = client.scope.split(' ');
  if (!settings.delegated.includes(claims.sub) || !params.scope.split(' ').every((scope) => granted.includes(scope))) {
    throw refusal(401, 'unauthorized_client', 'Client is unauthorized to retrieve access tokens using this method,'
      + ' or client not authorized for any of the scopes requested.');
  }
  const token = new provider.AccessToken({ client, accountId: claims.sub, scope: params.scope, gty: 'jwt_bearer' });
  ctx.oidc.entity('AccessToken', token);
  ctx.body = { access_token: await token.save(), expires_in: token.expiration, token_type: 'Bearer' };
};

async function verified(assertion, issuer, tokenUrls) {
  const { public_key: key, google_audience: google } = config.assertions;
  const { payload } = await jwtVerify(assertion, createPublicKey(key), {
    algorithms: ['RS256'],
    audience: [...tokenUrls, google],
    issuer,
    requiredClaims: ['exp', 'iat', 'sub'],
  }).catch((error) => {
    const forged = error.code === 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED';
    throw refusal(400, 'invalid_grant', forged ? 'Invalid JWT Signature.' : `Invalid JWT: ${error.message}`);
  });
  if (payload.exp - payload.iat > MAX_SECONDS) {
    throw refusal(400, 'invalid_grant', 'Invalid JWT: Token must be a short-lived token (60 minutes) and in a'
      + ' reasonable timeframe. Check your iat and exp values in the JWT claim.');
  }
  return payload;
}

const refusal = (status, error, description) => Object.assign(
  new errors.CustomOIDCProviderError(error, description),
  { status, statusCode: status },
);
