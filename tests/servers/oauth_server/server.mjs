// An OAuth 2.0 server for tests: oidc-provider under the paths of Microsoft's and Google's token endpoints.
//
// The driver (oauth_server.py) writes its configuration to standard input, one line of JSON, and reads the ports from
// standard output, one line of JSON. Grants, client authentication, rotation and tokens are oidc-provider's. Ours is
// what it leaves to who runs it (storage, accounts, resources), what it does not know (assertions.mjs), and the door
// for tests (administration.mjs).

import { createPublicKey, generateKeyPairSync, randomUUID, X509Certificate } from 'node:crypto';
import { createServer as createHttpServer } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import querystring from 'node:querystring';

import Provider, { errors } from 'oidc-provider';

import { administration } from './administration.mjs';
import { exchangeForeignAssertion, JWT_BEARER, jwtBearer } from './assertions.mjs';
import { config, counts, issued, now, settings, Storage } from './state.mjs';
import { accountOf, extraTokenClaims, resourceOfRequest, resourceServer } from './tokens.mjs';

const HOUR = 3600;
const { tenant } = config;

// ---------------------------------------------------------------------------------------------- addresses

const listen = (server) => new Promise((resolve) => {
  server.listen(0, '127.0.0.1', () => resolve(server.address().port));
});
const secure = createHttpsServer(config.tls, (request, response) => answer(handle, request, response));
const plain = createHttpServer((request, response) => answer(tokeninfo, request, response));
const port = await listen(secure);
const origin = `https://localhost:${port}`;

const routes = {
  authorization: `/${tenant}/oauth2/v2.0/authorize`,
  token: `/${tenant}/oauth2/v2.0/token`,
  device_authorization: `/${tenant}/oauth2/v2.0/devicecode`,
  code_verification: `/${tenant}/oauth2/v2.0/deviceauth`,
  jwks: `/${tenant}/discovery/v2.0/keys`,
  introspection: '/introspect',
};
const aliases = {
  '/token': routes.token,
  [`/${tenant}/token`]: routes.token,
  '/google/token': routes.token,
  '/devicecode': routes.device_authorization,
  [`/${tenant}/v2.0/.well-known/openid-configuration`]: '/.well-known/openid-configuration',
};
const tokenPaths = [routes.token, ...Object.keys(aliases).filter((path) => aliases[path] === routes.token)];
const tokenUrls = tokenPaths.map((path) => origin + path);

// ---------------------------------------------------------------------------------------------- the provider

const signingKey = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });
const publicJwk = (certificate) => ({ ...createPublicKey(certificate).export({ format: 'jwk' }), use: 'sig' });
const clients = config.clients.map(({ certificate, ...client }) => ({
  redirect_uris: [],
  response_types: [],
  ...client,
  ...(certificate && { jwks: { keys: [publicJwk(certificate)] } }),
}));
const thumbprint = (clientId) => {
  const { certificate } = config.clients.find((client) => client.client_id === clientId);
  return Buffer.from(new X509Certificate(certificate).fingerprint256.replaceAll(':', ''), 'hex');
};

const provider = new Provider(`${origin}/${tenant}/v2.0`, {
  adapter: Storage,
  // Microsoft finds a client's key by its certificate's thumbprint; oidc-provider tries all keys of the client.
  assertJwtClientAuthClaimsAndHeader(ctx, claims, header, client) {
    const told = Buffer.from(header['x5t#S256'] ?? '', 'base64url');
    if (!told.equals(thumbprint(client.clientId))) throw new errors.InvalidClientAuth('another x5t#S256');
  },
  claims: { profile: ['preferred_username', 'name'], email: ['email'] },
  clientAuthMethods: ['none', 'client_secret_basic', 'client_secret_post', 'private_key_jwt'],
  clients,
  conformIdTokenClaims: false, // the account's name stands in the ID token itself, where MSAL reads it
  cookies: { keys: [randomUUID()] },
  extraTokenClaims,
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    deviceFlow: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    resourceIndicators: {
      enabled: true,
      defaultResource: (ctx) => resourceOfRequest(ctx),
      getResourceServerInfo: (ctx, resource) => resourceServer(resource),
      useGrantedResource: () => true,
    },
  },
  findAccount: (ctx, account) => ({
    accountId: account,
    claims: () => ({ sub: account, preferred_username: account, name: account, email: account }),
  }),
  jwks: { keys: [{ ...signingKey, use: 'sig', alg: 'RS256' }] },
  rotateRefreshToken: (ctx) => !config.unrotated.includes(ctx.oidc.client.clientId),
  routes,
  scopes: config.scopes,
  ttl: {
    AccessToken: () => settings.token_seconds,
    ClientCredentials: () => settings.token_seconds,
    DeviceCode: () => settings.device_code_seconds,
    Grant: 90 * 24 * HOUR,
    IdToken: HOUR,
    RefreshToken: 90 * 24 * HOUR,
  },
});
provider.registerGrantType(JWT_BEARER, jwtBearer(provider, tokenUrls), ['assertion', 'scope']);

// A client that was told another name of the token endpoint gives that as the audience of its assertion.
provider.OIDCContext.prototype.clientJwtAuthExpectedAudience = () => new Set([provider.issuer, ...tokenUrls]);

provider.on('device_authorization.success', (ctx, body) => {
  body.interval = settings.poll_seconds;
  body.message = `To sign in, open ${body.verification_uri} and enter the code ${body.user_code}.`;
});
provider.on('grant.success', (ctx) => {
  const token = ctx.oidc.entities.AccessToken ?? ctx.oidc.entities.ClientCredentials;
  const { accountId, clientId, scope, aud, expiration } = token;
  issued.set(ctx.body.access_token, { accountId, clientId, scope, aud, exp: now() + expiration });
});
provider.on('server_error', (ctx, error) => console.error(error));
provider.on('grant.error', (ctx, error) => console.error(`${error.message}: ${error.error_detail}`));

// ---------------------------------------------------------------------------------------------- before the provider

const callback = provider.callback();
const admin = administration(provider);

async function handle(request, response, url, text) {
  const path = aliases[url.pathname] ?? url.pathname;
  if (path === '/tokeninfo') return tokeninfo(request, response, url, text);
  if (path.startsWith('/admin/')) {
    const done = await admin[path.slice('/admin/'.length)](text && JSON.parse(text));
    return send(response, 200, done ?? {});
  }
  request.url = path + url.search;
  request.body = querystring.parse(text);
  if (path === routes.token) {
    if (!admit(request.body, basicUser(request))) return send(response, 401, { error: 'invalid_client' });
    await exchangeForeignAssertion(request.body);
  }
  return callback(request, response);
}

// Count the request, and say whether its secret comes in the registered way: oidc-provider takes it in the body for
// one in the header, and the other way round.
function admit(form, basicId) {
  // RFC 7523 asks for no client authentication with an assertion; oidc-provider wants to know the client.
  if (form.grant_type === JWT_BEARER) form.client_id ??= config.assertions.client_id;
  const { grant_type: grantType = '', client_id: clientId = basicId ?? '' } = form;
  const key = `${clientId} ${grantType}`;
  counts.set(key, { client_id: clientId, grant_type: grantType, requests: (counts.get(key)?.requests ?? 0) + 1 });
  const method = config.clients.find((client) => client.client_id === clientId)?.token_endpoint_auth_method;
  if (basicId !== undefined) return method !== 'client_secret_post';
  return method !== 'client_secret_basic' || !form.client_secret;
}

function basicUser(request) {
  const credentials = /^basic (.*)$/i.exec(request.headers.authorization ?? '')?.[1];
  return credentials && querystring.unescape(Buffer.from(credentials, 'base64').toString().split(':')[0]);
}

// ---------------------------------------------------------------------------------------------- for mail servers

// GET answers as Google's tokeninfo does, a bad token with 401; POST as RFC 7662 does, with `active` alone.
function tokeninfo(request, response, url, text) {
  const bearer = /^bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1];
  const query = url.searchParams.get('access_token') ?? url.searchParams.get('token');
  const token = issued.get(querystring.parse(text).token ?? query ?? bearer);
  if (!token || token.exp <= now()) {
    return send(response, request.method === 'POST' ? 200 : 401, { active: false, error: 'invalid_token' });
  }
  const { clientId, scope, aud, exp } = token;
  const sub = accountOf(token);
  return send(response, 200, { active: true, sub, username: sub, email: sub, client_id: clientId, scope, aud, exp });
}

// ---------------------------------------------------------------------------------------------- HTTP

function send(response, status, body) {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

async function answer(handler, request, response) {
  try {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    await handler(request, response, new URL(request.url, origin), Buffer.concat(chunks).toString());
  } catch (error) {
    console.error(error);
    send(response, 500, { error: 'server_error', error_description: String(error) });
  }
}

process.stdout.write(`${JSON.stringify({ port, plain_port: await listen(plain) })}\n`);
