// Fifty subscribers of the native protocol lose their connections again and again, in the middle of
// messages and between them, while two thousand messages are published: each gets every message
// once and in order. KILL_SEED repeats a run.
'use strict';

const assert = require('node:assert/strict');
const { randomInt } = require('node:crypto');
const { OPEN, scenario, settles, together } = require('./native.js');

const SUBSCRIBERS = 50;
const MESSAGES = 2000;
const BATCH = 20;
const CHANNELS = ['kill:one', 'kill:two', 'kill:three'];
const KEPT = { NAMESPACES: JSON.stringify([
  { name: 'kill', ...OPEN, history_size: 4000, history_ttl: '300s' }]) };
const PATIENCE_MS = 40_000;
const seed = Number(process.env.KILL_SEED) || randomInt(2 ** 32);

/** The numbers of a channel's messages: each message goes to one channel, in turn. */
const numbersOf = (channel) => Array.from({ length: MESSAGES }, (_, at) => at + 1)
  .filter((n) => CHANNELS[n % CHANNELS.length] === channel);

scenario(`fifty that are cut off again and again miss nothing (KILL_SEED=${seed})`, KEPT,
  async (house) => {
    const proxy = await house.proxy(seed);
    const publisher = await house.dial();
    const peers = await Promise.all(
      Array.from({ length: SUBSCRIBERS }, () => house.dial({}, proxy.url)));
    const subscribers = await Promise.all(peers.flatMap((peer) => CHANNELS.map((name) => (
      peer.subscribe(name, { recoverable: true })))));
    for (let n = 1; n <= MESSAGES; n += BATCH) {
      proxy.cutSome(0.35, 1500);
      await publish(house, publisher, Array.from({ length: BATCH }, (_, at) => n + at));
      // Time for those who were cut off to come back, half of them or more.
      const pause = Math.floor(proxy.random() * 90);
      await new Promise((resolve) => { setTimeout(resolve, pause); });
      await settles(() => proxy.size >= SUBSCRIBERS / 2, 'back');
    }
    assert.ok(proxy.cuts > 5 * SUBSCRIBERS, `only ${proxy.cuts} cuts`);
    const expected = new Map(CHANNELS.map((channel) => [channel, numbersOf(channel)]));
    for (const { channel, events } of subscribers) {
      const numbers = expected.get(channel);
      assert.deepEqual(await events.count(numbers.length, PATIENCE_MS), numbers);
      const offsets = events.all('publication').map(({ offset }) => offset);
      assert.deepEqual(offsets, numbers.map((_, at) => at + 1));
      assert.ok(events.all('subscribed').every((told) => !told.wasRecovering || told.recovered));
    }
    const times = peers.map(({ events }) => events.all('connected').length);
    assert.ok(Math.min(...times) >= 5, `one of them connected only ${Math.min(...times)} times`);
    const recovered = subscribers.filter(({ events }) => (
      events.all('subscribed').some((told) => told.hasRecoveredPublications)));
    assert.equal(recovered.length, subscribers.length, 'one of them never had to recover');
  });

/** By the SDK or by the server API, one batch after the other; both keep the order of a batch. */
async function publish(house, publisher, numbers) {
  const messages = numbers.map((n) => ({ channel: CHANNELS[n % CHANNELS.length], data: n }));
  if (numbers[0] % (2 * BATCH) === 1) {
    await Promise.all(messages.map(({ channel, data }) => publisher.sdk.publish(channel, data)));
    return;
  }
  const commands = messages.map((message) => ({ publish: message }));
  const { body } = await house.ask('batch', { commands });
  const isDone = (reply) => reply.publish && !reply.error;
  assert.ok(body.replies?.every(isDone), JSON.stringify(body));
}

together('kill and recover', 1);
