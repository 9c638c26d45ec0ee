// Starts the release binary for the tests of this folder, on a port that the kernel chooses.
// SUITE_SERVER names the binary; `stop` insists on status 0 after SIGTERM.
'use strict';

const assert = require('node:assert/strict');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const WebSocket = require('ws');

const BINARY = process.env.SUITE_SERVER || 'target/release/tidemill';
const START_LIMIT_MS = 20_000;

async function start(options = {}) {
  const env = { TIDEMILL_LISTEN: '127.0.0.1:0' };
  for (const [name, value] of Object.entries(process.env)) {
    if (!name.startsWith('TIDEMILL_')) env[name] = value;
  }
  for (const [name, value] of Object.entries(options)) env[`TIDEMILL_${name}`] = value;
  const process_ = spawn(BINARY, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const server = { process: process_, output: '', ended: once(process_, 'exit') };
  server.port = await port(server);
  server.url = (path) => `ws://127.0.0.1:${server.port}${path}`;
  server.stop = () => stop(server);
  return server;
}

function port(server) {
  return new Promise((resolve, reject) => {
    const failed = (why) => {
      server.process.kill('SIGKILL');
      reject(new Error(`${why}:\n${server.output}`));
    };
    const limit = setTimeout(() => failed('the server named no endpoint'), START_LIMIT_MS);
    const read = (chunk) => {
      server.output += chunk;
      const found = /ws:\/\/127\.0\.0\.1:(\d+)/.exec(server.output);
      if (!found) return;
      clearTimeout(limit);
      resolve(Number(found[1]));
    };
    server.process.stdout.on('data', read);
    server.process.stderr.on('data', read);
    server.process.on('error', reject);
    server.ended.then(([status]) => failed(`the server ended with status ${status}`));
  });
}

async function stop(server) {
  server.process.kill('SIGTERM');
  const [status] = await server.ended;
  assert.equal(status, 0, server.output);
}

/** An open connection; `connect` fails when the handshake is refused. */
async function connect(url, options = {}, protocols = []) {
  const socket = new WebSocket(url, protocols, { perMessageDeflate: false, ...options });
  const arrived = [];
  const waiting = [];
  socket.on('message', (data, isBinary) => {
    const message = isBinary ? data : data.toString();
    if (waiting.length) waiting.shift()(message);
    else arrived.push(message);
  });
  /** The next message: a string for text, a Buffer for binary. */
  socket.receive = () =>
    arrived.length ? Promise.resolve(arrived.shift()) : new Promise((next) => waiting.push(next));
  socket.closed = new Promise((resolve) => {
    socket.on('close', (code, reason) => resolve({ code, reason: reason.toString() }));
  });
  await once(socket, 'open');
  return socket;
}

/** The status and headers with which a handshake is refused. */
async function refusal(url, options = {}) {
  const socket = new WebSocket(url, options);
  socket.on('error', () => {});
  const [, response] = await once(socket, 'unexpected-response');
  let body = '';
  for await (const chunk of response) body += chunk;
  return { status: response.statusCode, headers: response.headers, body };
}

module.exports = { start, connect, refusal };
