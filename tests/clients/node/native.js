// What the tests of the native protocol share: a server with four reactors, the unmodified SDK over
// a WebSocket that remembers its frames, what it told the application, tokens, the server API.
'use strict';

const assert = require('node:assert/strict');
const { createHmac } = require('node:crypto');
const { describe, it } = require('node:test');
const { Centrifuge } = require('centrifuge');
const WebSocket = require('ws');
const { Proxy } = require('./proxy.js');
const { start } = require('./server.js');

const PATH = '/connection/websocket';
const SECRET = 'a secret of at least thirty-two bytes, for tests';
const API_KEY = 'the-key-of-the-server-api';
/** How long anything may take that does not wait for a timer of the server. */
const PATIENCE_MS = 15_000;
const LIMIT = { timeout: 60_000 };

const OPEN = Object.fromEntries(['subscribe', 'publish', 'presence', 'history'].flatMap((what) =>
  ['client', 'anonymous'].map((who) => [`allow_${what}_for_${who}`, true])));
const NAMESPACES = [
  { name: 'chat', ...OPEN, allow_user_limited_channels: true, presence: true, join_leave: true,
    history_size: 1000, history_ttl: '300s' },
  { name: 'feed', ...OPEN, history_size: 10, history_ttl: '300s', force_recovery: true },
  { name: 'read', allow_subscribe_for_client: true, allow_subscribe_for_anonymous: true },
  { name: 'plain', ...OPEN },
  { name: 'wild', ...OPEN, allow_wildcards: true, history_size: 10, history_ttl: '300s' },
  { name: 'told', ...OPEN, join_leave: true, force_push_join_leave: true },
  { name: 'shut', presence: true, history_size: 10, history_ttl: '300s' },
];

const scenarios = [];

/** Has `together` run `body` with a server of its own, which must then leave with status 0. */
function scenario(name, options, body) {
  scenarios.push([name, async () => {
    const house = new House({ REACTORS: '4', API_KEY, DRAIN_TIME: '0',
      NAMESPACES: JSON.stringify(NAMESPACES), ...options });
    try {
      await house.open();
      await body(house);
    } finally {
      await house.close();
    }
  }]);
}

/** Runs the scenarios of a file, so many at a time: most of their time is spent waiting. */
function together(title, concurrency = 4) {
  describe(title, { concurrency }, () => {
    for (const [name, run] of scenarios) it(name, LIMIT, run);
  });
}

/** A server, and all who came to it. */
class House {
  #options;
  #server;
  #peers = [];
  #proxies = [];

  constructor(options) {
    this.#options = options;
  }

  async open() {
    this.#server = await start(this.#options);
    this.#options.LISTEN = `127.0.0.1:${this.#server.port}`;
  }

  async close() {
    for (const { sdk } of this.#peers) sdk.disconnect();
    for (const proxy of this.#proxies) proxy.close();
    await this.leave();
  }

  /** Ends the server by SIGTERM; `open` has another one take its port. */
  async leave() {
    const server = this.#server;
    this.#server = undefined;
    await server?.stop();
  }

  get url() {
    return this.#server.url(PATH);
  }

  /** A peer that is not connected yet. */
  peer(options = {}, url = this.url) {
    const peer = new Peer(url, options);
    this.#peers.push(peer);
    return peer;
  }

  /** A connected peer. */
  async dial(options = {}, url = this.url) {
    const peer = this.peer(options, url);
    await peer.connect();
    return peer;
  }

  /** A connected peer of this user. */
  user(sub, claims = {}, url = this.url) {
    return this.dial({ token: token({ sub, ...claims }) }, url);
  }

  /** A proxy before the server, which cuts connections. */
  async proxy(seed = 1) {
    const proxy = await Proxy.before(this.#server.port, PATH, seed);
    this.#proxies.push(proxy);
    return proxy;
  }

  /** The status of an answer of the server API, and its body. */
  async ask(method, body = {}) {
    const answer = await fetch(`http://127.0.0.1:${this.#server.port}/api/${method}`, {
      method: 'POST', headers: { 'X-API-Key': API_KEY }, body: JSON.stringify(body),
    });
    return { status: answer.status, body: await answer.json() };
  }

  /** The result of a request to the server API, which must succeed. */
  async api(method, body = {}) {
    const answer = await this.ask(method, body);
    assert.deepEqual([answer.status, answer.body.error], [200, undefined],
      `${method} ${JSON.stringify(body)}: ${JSON.stringify(answer.body)}`);
    return answer.body.result;
  }

  publish(channel, ...numbers) {
    return Promise.all(numbers.map((n) => this.api('publish', { channel, data: { n } })));
  }
}

const OF_CLIENT = ['connecting', 'connected', 'disconnected', 'error', 'message', 'subscribing',
  'subscribed', 'unsubscribed', 'publication', 'join', 'leave'];
const OF_SUBSCRIPTION = ['subscribing', 'subscribed', 'unsubscribed', 'publication', 'join',
  'leave', 'error'];

/** One SDK client. */
class Peer {
  /** Every text frame of all its connections, and the WebSocket of each. */
  received = [];
  sent = [];
  sockets = [];

  constructor(url, options) {
    this.sdk = new Centrifuge(url, { websocket: remembering(this), minReconnectDelay: 10,
      maxReconnectDelay: 200, timeout: PATIENCE_MS, ...options });
    this.events = new Events(this.sdk, OF_CLIENT);
  }

  connect() {
    this.sdk.connect();
    return this.events.next('connected');
  }

  /** A subscription that nobody has asked for yet. */
  channel(name, options = {}) {
    const settings = { minResubscribeDelay: 10, maxResubscribeDelay: 200, ...options };
    const subscription = this.sdk.newSubscription(name, settings);
    subscription.events = new Events(subscription, OF_SUBSCRIPTION);
    return subscription;
  }

  /** A subscription, with what the server said as `context`. */
  async subscribe(name, options = {}) {
    const subscription = this.channel(name, options);
    subscription.subscribe();
    subscription.context = await subscription.events.next('subscribed');
    return subscription;
  }

  /** How the server refuses a subscription. */
  refused(name, options = {}) {
    const subscription = this.channel(name, options);
    subscription.subscribe();
    return subscription.events.next('unsubscribed');
  }
}

function remembering(peer) {
  return class extends WebSocket {
    constructor(...how) {
      super(...how);
      peer.sockets.push(this);
      this.on('message', (data) => peer.received.push(data.toString()));
    }

    send(data, ...how) {
      peer.sent.push(data.toString());
      super.send(data, ...how);
    }
  };
}

/** What an SDK object told the application, in order. */
class Events {
  list = [];
  #past = {};
  #waiting = new Set();

  constructor(emitter, names) {
    for (const name of names) {
      emitter.on(name, (context) => {
        this.list.push({ name, ...context });
        for (const look of this.#waiting) look();
      });
    }
  }

  all(name) {
    return this.list.filter((event) => event.name === name);
  }

  /** The data of all publications. */
  get data() {
    return this.all('publication').map(({ data }) => data);
  }

  /** The next event of this name that passes the test; those before it are taken as well. */
  next(name, test = () => true, patience = PATIENCE_MS) {
    return this.until(() => {
      let at = this.#past[name] ?? 0;
      while (at < this.list.length) {
        const event = this.list[at];
        at += 1;
        if (event.name === name && test(event)) {
          this.#past[name] = at;
          return event;
        }
      }
      return undefined;
    }, name, patience);
  }

  /** Waits until so many publications are there, and gives the data of all. */
  async count(many, patience = PATIENCE_MS) {
    const isThere = () => this.data.length >= many;
    await this.until(isThere, `publication ${many}`, patience);
    return this.data;
  }

  /** Waits until what `find` looks for is there, which it asks anew after each event. */
  until(find, what, patience = PATIENCE_MS) {
    return new Promise((resolve, reject) => {
      const end = (settle, value) => {
        clearTimeout(late);
        this.#waiting.delete(look);
        settle(value);
      };
      const look = () => {
        const found = find();
        if (found) end(resolve, found);
      };
      const late = setTimeout(() => {
        const last = this.list.slice(-12)
          .map((event) => JSON.stringify(event).slice(0, 200)).join('\n  ');
        end(reject, new Error(`no ${what}, but at last of ${this.list.length}:\n  ${last}`));
      }, patience);
      this.#waiting.add(look);
      look();
    });
  }
}

/** A token of HS256 that is good for a minute; undefined leaves a claim out. */
function token(claims, secret = SECRET, header = { alg: 'HS256', typ: 'JWT' }) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part(header)}.${part({ exp: inSeconds(60), ...claims })}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

function inSeconds(seconds) {
  return Math.floor(Date.now() / 1000) + seconds;
}

/** Who is on a channel. The SDK leaves what it has renamed beside the new names. */
async function present(channel) {
  const members = Object.values((await channel.presence()).clients);
  return members.map(({ client, user, connInfo, chanInfo }) => (
    { client, user, connInfo, chanInfo }));
}

/** What is asked for and does not come. */
const never = () => new Promise(() => {});

/** Waits for what only asking again can tell. */
async function settles(ask, what) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    assert.ok(Date.now() < deadline, `never ${what}`);
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }
}

/** The objects of a frame. */
const parts = (frame) => frame.split('\n').map((line) => JSON.parse(line));

module.exports = { NAMESPACES, OPEN, SECRET, inSeconds, never, parts, present, scenario, settles,
  together, token };
