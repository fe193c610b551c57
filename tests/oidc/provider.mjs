// A real OpenID provider for tests/api/test_oidc.py, on loopback: anybody may log in as anybody.
//
//   node provider.mjs PORT
//
// PUT /spoil takes a JSON object: claims that the next ID token has in place of its own (null: not at
// all), "alg": "none" for one without a signature, "key": "other" for one signed by somebody else.

import { SignJWT, UnsecuredJWT, decodeJwt, exportJWK, generateKeyPair } from "jose";
import { Provider } from "oidc-provider";

const port = Number(process.argv[2]);
const issuer = `http://localhost:${port}`;
const own = await generateKeyPair("RS256", { extractable: true });
const other = await generateKeyPair("RS256");
const jwk = { ...(await exportJWK(own.privateKey)), kid: "one", use: "sig", alg: "RS256" };

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "mammoseq",
      client_secret: "SECRET-of-the-client",
      redirect_uris: ["http://127.0.0.1/session/oidc/callback"],
    },
  ],
  jwks: { keys: [jwk] },
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

provider.use(async (context, next) => {
  if (context.path === "/spoil") {
    const parts = [];
    for await (const part of context.req) parts.push(part);
    spoil = JSON.parse(Buffer.concat(parts).toString());
    context.body = {};
    return;
  }
  await next();
  if (context.path === "/.well-known/openid-configuration")
    context.body.id_token_signing_alg_values_supported.push("none"); // as some do
  if (context.path === "/token" && context.body?.id_token && spoil) {
    context.body.id_token = await spoiled(context.body.id_token);
    spoil = null;
  }
});

async function spoiled(token) {
  const { alg, key, ...changed } = spoil;
  const claims = { ...decodeJwt(token), ...changed };
  for (const [name, value] of Object.entries(claims)) if (value === null) delete claims[name];
  if (alg === "none") return new UnsecuredJWT(claims).encode();
  return new SignJWT(claims)
    .setProtectedHeader({ alg: "RS256", kid: "one" })
    .sign(key === "other" ? other.privateKey : own.privateKey);
}

provider.listen(port, "localhost", () => console.log(`listening at ${issuer}`));
