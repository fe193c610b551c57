// A real OpenID provider for tests/api/test_oidc.py and test_tokens.py, on loopback: anybody may log in as
// anybody, and the client "pacs" gets an access token (JWT) for any resource; for one that ends with
// "es256", signed with that.
//
//   node provider.mjs PORT
//
// PUT /spoil takes a JSON object: claims that the next token has in place of its own (null: not at all),
// "alg": "none" for one without a signature, "key": "other" for one signed by somebody else, "public" for
// one by HS256 with the public key as the secret, "kid" for another name of the key.
// PUT /publish adds the key of somebody else, "other", to the provider's own.

import {
  SignJWT, UnsecuredJWT, decodeJwt, decodeProtectedHeader, exportJWK, exportSPKI, generateKeyPair,
} from "jose";
import { Provider } from "oidc-provider";

const port = Number(process.argv[2]);
const issuer = `http://localhost:${port}`;
const own = await generateKeyPair("RS256", { extractable: true });
const curve = await generateKeyPair("ES256", { extractable: true });
const other = await generateKeyPair("RS256", { extractable: true });
const jwk = { ...(await exportJWK(own.privateKey)), kid: "one", use: "sig", alg: "RS256" };
const onCurve = { ...(await exportJWK(curve.privateKey)), kid: "two", use: "sig", alg: "ES256" };
const ofOther = { ...(await exportJWK(other.publicKey)), kid: "other", use: "sig", alg: "RS256" };
const secret = new TextEncoder().encode(await exportSPKI(own.publicKey));

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "mammoseq",
      client_secret: "SECRET-of-the-client",
      redirect_uris: ["http://127.0.0.1/session/oidc/callback"],
    },
    {
      client_id: "pacs",
      client_secret: "SECRET-of-the-pacs",
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
    },
  ],
  features: {
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource) => ({
        scope: "predict read write",
        audience: resource,
        accessTokenFormat: "jwt",
        jwt: { sign: { alg: resource.endsWith("es256") ? "ES256" : "RS256" } },
      }),
    },
  },
  jwks: { keys: [jwk, onCurve] },
  cookies: { keys: ["only for tests"] },
  claims: { openid: ["sub"], profile: ["preferred_username"], email: ["email", "email_verified"] },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({
      sub: id,
      ...(id.startsWith("plain") ? {} : { preferred_username: `${id}@hospital` }),
      email: `${id}@example.org`,
      email_verified: id !== "plain-unverified",
    }),
  }),
  pkce: { required: () => true },
});

// The service has another port each time
provider.Client.prototype.redirectUriAllowed = (uri) =>
  /^http:\/\/127\.0\.0\.1:\d+\/session\/oidc\/callback$/.test(uri);

let spoil = null;
let published = false;

provider.use(async (context, next) => {
  if (context.path === "/spoil") {
    const parts = [];
    for await (const part of context.req) parts.push(part);
    spoil = JSON.parse(Buffer.concat(parts).toString());
    context.body = {};
    return;
  }
  if (context.path === "/publish") {
    published = true;
    context.body = {};
    return;
  }
  await next();
  if (context.path === "/jwks" && published) context.body.keys.push(ofOther);
  if (context.path === "/.well-known/openid-configuration")
    context.body.id_token_signing_alg_values_supported.push("none"); // as some do
  const name = context.body?.id_token ? "id_token" : "access_token";
  if (context.path === "/token" && context.body?.[name] && spoil) {
    context.body[name] = await spoiled(context.body[name]);
    spoil = null;
  }
});

async function spoiled(token) {
  const { alg, key, kid, ...changed } = spoil;
  const claims = { ...decodeJwt(token), ...changed };
  for (const [name, value] of Object.entries(claims)) if (value === null) delete claims[name];
  if (alg === "none") return new UnsecuredJWT(claims).encode();
  const header = { ...decodeProtectedHeader(token), kid: kid ?? "one" };
  if (key === "public")
    return new SignJWT(claims).setProtectedHeader({ ...header, alg: "HS256" }).sign(secret);
  return new SignJWT(claims)
    .setProtectedHeader({ ...header, alg: "RS256" })
    .sign(key === "other" ? other.privateKey : own.privateKey);
}

provider.listen(port, "localhost", () => console.log(`listening at ${issuer}`));
