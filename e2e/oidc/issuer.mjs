// An OpenID Connect issuer for tests: oidc-provider, with a client for each signature algorithm, and these paths of its own:
//   /test/rotate     replaces all keys
//   /test/requests   the number of requests by path, as JSON
// Usage: issuer.mjs PORT [TLS-CERTIFICATE TLS-KEY]
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { createRequire } from 'node:module';

// The packages are outside of the source tree.
const require = createRequire(`${process.env.OIDC_MODULES}/`);
const { Provider } = await import(require.resolve('oidc-provider'));

const [port, certificate, key] = process.argv.slice(2);
const tls = certificate && { cert: readFileSync(certificate), key: readFileSync(key) };
const issuer = `${tls ? 'https' : 'http'}://localhost:${port}`;

const ALGORITHMS = {
    RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
    ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    EdDSA: () => generateKeyPairSync('ed25519'),
};

function newKeys() {
    return Object.entries(ALGORITHMS).map(([alg, generate]) => ({
        ...generate().privateKey.export({ format: 'jwk' }),
        alg,
        kid: randomUUID(),
        use: 'sig',
    }));
}

// One client for each algorithm, and one of a customer. The name of a client is its secret too.
const CLIENTS = [...Object.keys(ALGORITHMS), 'customer'];
const SCOPES = 'orders:read orders:list orders:pii';

function newProvider() {
    const provider = new Provider(issuer, {
        jwks: { keys: newKeys() },
        clients: CLIENTS.map((name) => ({
            client_id: name,
            client_secret: name,
            grant_types: ['client_credentials'],
            redirect_uris: [],
            response_types: [],
            token_endpoint_auth_method: 'client_secret_post',
        })),
        cookies: { keys: ['test'] },
        scopes: SCOPES.split(' '),
        ttl: { ClientCredentials: 600 },
        extraTokenClaims: (_, token) => (token.clientId === 'customer' ? { customer: 'acme' } : undefined),
        features: {
            devInteractions: { enabled: false },
            clientCredentials: { enabled: true },
            resourceIndicators: {
                enabled: true,
                defaultResource: () => 'urn:orders',
                getResourceServerInfo: (_, resource, client) => ({
                    audience: resource === 'urn:orders' ? 'orders' : resource,
                    scope: SCOPES,
                    accessTokenFormat: 'jwt',
                    accessTokenTTL: 600,
                    jwt: { sign: { alg: client.clientId in ALGORITHMS ? client.clientId : 'ES256' } },
                }),
            },
        },
    });
    provider.on('server_error', (_, error) => console.error(error));
    return provider.callback();
}

let provider = newProvider();
const requests = {};

function handle(request, response) {
    const path = request.url.split('?')[0];
    switch (path) {
    case '/test/rotate':
        provider = newProvider();
        return response.end();
    case '/test/requests':
        return response.end(JSON.stringify(requests));
    default:
        requests[path] = (requests[path] ?? 0) + 1;
        return provider(request, response);
    }
}

const server = tls ? https.createServer(tls, handle) : http.createServer(handle);
server.listen(Number(port), '127.0.0.1', () => console.log(`listening as ${issuer}`));
