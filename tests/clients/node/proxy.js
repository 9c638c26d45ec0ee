// A TCP proxy that cuts: with a reset or without, between two messages or in the middle of one.
'use strict';

const { once } = require('node:events');
const net = require('node:net');

class Proxy {
  /** How many connections were cut. */
  cuts = 0;
  #isShut = false;
  #server;
  #port;
  #lines = new Set();

  /** A proxy before this port of the machine. */
  static async before(port, path, seed) {
    const proxy = new Proxy(port, randomness(seed));
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    proxy.url = `ws://127.0.0.1:${proxy.#server.address().port}${path}`;
    return proxy;
  }

  constructor(port, random) {
    this.random = random;
    this.#port = port;
    this.#server = net.createServer({ noDelay: true }, (peer) => this.#join(peer));
  }

  #join(peer) {
    if (this.#isShut) {
      peer.on('error', () => {});
      peer.destroy();
      return;
    }
    const server = net.connect({ host: '127.0.0.1', port: this.#port, noDelay: true });
    const line = { peer, server, left: Infinity };
    this.#lines.add(line);
    for (const socket of [peer, server]) {
      socket.on('error', () => {});
      socket.on('close', () => this.#end(line, false));
    }
    peer.on('data', (bytes) => server.write(bytes));
    server.on('data', (bytes) => {
      peer.write(bytes.subarray(0, line.left));
      line.left -= bytes.length;
      if (line.left <= 0) this.#end(line, line.resets);
    });
    peer.on('end', () => server.end());
    server.on('end', () => peer.end());
  }

  #end(line, resets) {
    if (!this.#lines.delete(line)) return;
    for (const socket of [line.peer, line.server]) {
      if (resets) socket.resetAndDestroy();
      else socket.destroy();
    }
  }

  /** How many connections there are. */
  get size() {
    return this.#lines.size;
  }

  /** Lets nothing pass on the connections that there are, and tells nobody. */
  freeze() {
    for (const { peer, server } of this.#lines) {
      peer.pause();
      server.pause();
    }
  }

  /** Cuts every connection, and refuses new ones until `reopen`. */
  shut() {
    this.#isShut = true;
    this.cutAll();
  }

  reopen() {
    this.#isShut = false;
  }

  /** Cuts every connection at once. */
  cutAll() {
    for (const line of [...this.#lines]) this.#cut(line, 0, false);
  }

  /** Cuts this share of the connections, each once at most so many bytes more have passed. */
  cutSome(share, bytesMax) {
    for (const line of [...this.#lines]) {
      if (line.left !== Infinity || this.random() >= share) continue;
      const isAtOnce = this.random() < 0.5;
      const resets = this.random() < 0.5;
      this.#cut(line, isAtOnce ? 0 : 1 + Math.floor(this.random() * bytesMax), resets);
    }
  }

  #cut(line, left, resets) {
    this.cuts += 1;
    line.left = left;
    line.resets = resets;
    if (left === 0) this.#end(line, resets);
  }

  close() {
    this.#server.close();
    this.cutAll();
  }
}

/** Numbers from 0 to 1, the same ones for the same seed (mulberry32). */
function randomness(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

module.exports = { Proxy, randomness };
