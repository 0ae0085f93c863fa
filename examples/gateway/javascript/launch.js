// Launches flows through a headgate gateway with the official SDK, all at once.
//
//   headgate gateway --emulator          # in another terminal
//   npm ci && node launch.js [HOW MANY]
//
// HEADGATE_URL is where the gateway is. For an org of several, add its path:
// http://127.0.0.1:8080/acme. HEADGATE_CALLER and HEADGATE_KEY are a caller's name
// and key; with --emulator any will do.
'use strict';
const platformClient = require('purecloud-platform-client-v2');

const url = new URL(process.env.HEADGATE_URL || 'http://127.0.0.1:8080');
const many = Number(process.argv[2] || 300);

const client = platformClient.ApiClient.instance;
client.config.setGateway({
  host: url.hostname,
  protocol: url.protocol.replace(':', ''),
  port: Number(url.port) || undefined,
  path_params_login: url.pathname,
  path_params_api: url.pathname,
});
// The SDK gives up after 16 s unless it is told otherwise: a call may be held for
// as long as the gateway's file says (max_wait).
client.timeout = 300_000;

async function main() {
  await client.loginClientCredentialsGrant(process.env.HEADGATE_CALLER || 'example', process.env.HEADGATE_KEY || 'any');
  const architect = new platformClient.ArchitectApi();
  const start = Date.now();
  const calls = Array.from({ length: many }, (_, n) =>
    architect.postFlowsExecutions({ flowId: 'my-flow', inputData: { 'Flow.n': n } }));
  const results = await Promise.allSettled(calls);
  const launched = results.filter((r) => r.status === 'fulfilled');
  for (const r of results.filter((r) => r.status === 'rejected').slice(0, 3)) {
    console.error('not launched:', r.reason.status, r.reason.body || r.reason.message || r.reason);
  }
  console.log(`${launched.length} of ${many} launched in ${((Date.now() - start) / 1000).toFixed(2)} s, ` +
    `${new Set(launched.map((r) => r.value.id)).size} different`);
  process.exitCode = launched.length === many ? 0 : 1;
}

main().catch((err) => {
  console.error(err.message || err);
  process.exitCode = 1;
});
