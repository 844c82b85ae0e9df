// The matrix's program of KafkaJS, which reads in groups only. Arguments: bootstrap server, cases.

import { createRequire } from "node:module";
import kafkajs from "kafkajs";
import snappy from "kafkajs-snappy";
import { Refused, expect, main, until } from "./run.js";

const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = kafkajs;
CompressionCodecs[CompressionTypes.Snappy] = snappy;

const AT_ONCE_MS = 5_000;
const [bootstrap, ...names] = process.argv.slice(2);
const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.NOTHING });
const admin = kafka.admin();
await admin.connect();

let used = 0;
const fresh = (what) => `kafkajs-${what}-${process.pid}-${used++}`;
const values = (count, repeat = 1) => Array.from({ length: count }, (_, at) => String(at).padStart(6, "0").repeat(repeat));
const text = (buffer) => (buffer === null ? null : buffer.toString());

async function topic(what, numPartitions = 1, configEntries = []) {
  const name = fresh(what);
  // Kafka answers before it knows the topic everywhere, which the client's own wait takes for a failure.
  const topics = [{ topic: name, numPartitions, replicationFactor: 1, configEntries }];
  await admin.createTopics({ topics, waitForLeaders: false });
  await until(async () => (await partitions(name).catch(() => 0)) === numPartitions, "the topic is not there");
  return name;
}

const partitions = async (name) => (await admin.fetchTopicMetadata({ topics: [name] })).topics[0].partitions.length;

async function write(name, messages, { settings = {}, ...how } = {}) {
  const producer = kafka.producer(settings);
  await producer.connect();
  try {
    await producer.send({ topic: name, messages, ...how });
  } finally {
    await producer.disconnect();
  }
}

async function written(what, count = 50) {
  const name = await topic(what);
  await write(name, values(count).map((value) => ({ value })));
  return name;
}

// So many messages, from an offset of partition 0 on where one is given.
async function read(name, count, offset) {
  // A fetch that waits for records delays the end of the reader.
  const consumer = kafka.consumer({ groupId: fresh("reader"), maxWaitTimeInMs: 200 });
  const found = [];
  await consumer.connect();
  await consumer.subscribe({ topic: name, fromBeginning: true });
  await consumer.run({ autoCommit: false, eachMessage: async ({ message }) => void found.push(message) });
  if (offset !== undefined) consumer.seek({ topic: name, partition: 0, offset: String(offset) });
  await until(() => found.length >= count, "records are missing");
  await consumer.disconnect();
  expect(found.length, count, "records read");
  return found;
}

async function roundTrip(payloads, how) {
  const name = await topic("produce", 3);
  await write(name, payloads.map((value) => ({ value })), how);
  const found = (await read(name, payloads.length)).map((message) => text(message.value));
  expect(found.sort(), [...payloads].sort(), "what came back");
}

async function headers() {
  const name = await topic("headers");
  const sent = { a: ["1", ""], b: "2" };
  await write(name, [{ value: "v", headers: sent }]);
  const [found] = await read(name, 1);
  expect({ a: found.headers.a.map(text), b: text(found.headers.b) }, sent, "headers");
}

async function nulls() {
  const name = await topic("nulls");
  const sent = [[null, "v"], ["k", null], ["k", ""]];
  await write(name, sent.map(([key, value]) => ({ key, value })));
  expect((await read(name, 3)).map(({ key, value }) => [text(key), text(value)]), sent, "keys and values");
}

async function tooLarge() {
  const name = await topic("large", 1, [{ name: "max.message.bytes", value: "10000" }]);
  const error = await write(name, [{ value: "x".repeat(20_000) }]).then(() => undefined, (thrown) => thrown);
  expect(error?.type ?? error?.cause?.type, "MESSAGE_TOO_LARGE", "error");
}

async function autoCreate() {
  const name = fresh("auto");
  await write(name, [{ value: "first" }]);
  await read(name, 1);
}

async function fromTimestamp() {
  const name = await topic("timestamp");
  const base = Date.now() - 100_000;
  await write(name, values(50).map((value, at) => ({ value, timestamp: String(base + 1000 * at) })));
  const [{ offset }] = await admin.fetchTopicOffsetsByTimestamp(name, base + 20_500);
  expect(offset, "21", "offset at the time");
  expect((await read(name, 29, offset))[0].offset, "21", "first offset");
}

class Member {
  values = [];
  partitions = new Set();

  async start(groupId, name) {
    // So that a member hears of a rebalance soon.
    this.consumer = kafka.consumer({ groupId, heartbeatInterval: 500, maxWaitTimeInMs: 200 });
    this.consumer.on(this.consumer.events.GROUP_JOIN, ({ payload }) => {
      this.partitions = new Set(payload.memberAssignment[name] ?? []);
    });
    this.consumer.on(this.consumer.events.REBALANCING, () => (this.partitions = new Set()));
    await this.consumer.connect();
    await this.consumer.subscribe({ topic: name, fromBeginning: true });
    const eachMessage = async ({ topic, partition, message }) => {
      this.values.push(text(message.value));
      await this.consumer.commitOffsets([{ topic, partition, offset: String(Number(message.offset) + 1) }]);
    };
    await this.consumer.run({ autoCommit: false, eachMessage });
    return this;
  }
}

const share = (members, each) =>
  members.every((member) => member.partitions.size === each) &&
  new Set(members.flatMap((member) => [...member.partitions])).size === 6;

async function three() {
  const name = await topic("three", 6);
  const group = fresh("three");
  const members = await Promise.all([0, 1, 2].map(() => new Member().start(group, name)));
  const all = () => members.flatMap((member) => member.values).sort();
  const numbered = (prefix) => values(60).map((value) => prefix + value);
  const send = (prefix) => write(name, numbered(prefix).map((value, at) => ({ value, partition: at % 6 })));
  await until(() => share(members, 2), "three members do not share the partitions");
  await send("a");
  await until(() => all().length >= 60, "60 records were not read");
  await members[0].consumer.disconnect();
  await until(() => share(members.slice(1), 3), "the two that stayed did not take over");
  await send("b");
  await until(() => all().length >= 120, "120 records were not read");
  expect(all(), [...numbered("a"), ...numbered("b")].sort(), "what the group read");
  for (const member of members.slice(1)) await member.consumer.disconnect();
}

async function readAndCommit(groupId, name, count) {
  const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 200 });
  const found = [];
  await consumer.connect();
  await consumer.subscribe({ topic: name, fromBeginning: true });
  const eachMessage = async ({ topic, partition, message }) => {
    if (found.length === count) return;
    found.push(text(message.value));
    await consumer.commitOffsets([{ topic, partition, offset: String(Number(message.offset) + 1) }]);
  };
  await consumer.run({ autoCommit: false, eachMessage });
  await until(() => found.length === count, "records are missing");
  await consumer.disconnect();
  return found;
}

async function resume() {
  const name = await written("resume", 20);
  const group = fresh("resume");
  for (const expected of [values(20).slice(0, 10), values(20).slice(10)]) {
    expect(await readAndCommit(group, name, 10), expected, "values");
  }
}

async function config(name, key) {
  const resources = [{ type: ConfigResourceTypes.TOPIC, name }];
  const { resources: found } = await admin.describeConfigs({ includeSynonyms: false, resources });
  return found[0].configEntries.find((entry) => entry.configName === key).configValue;
}

async function createTopic() {
  const name = await topic("create", 5, [{ name: "retention.ms", value: "3600000" }]);
  expect(await config(name, "retention.ms"), "3600000", "retention.ms");
}

async function createPartitions() {
  const name = await topic("partitions", 2);
  await admin.createPartitions({ topicPartitions: [{ topic: name, count: 7 }] });
  await until(async () => (await partitions(name)) === 7, "not seven partitions");
}

async function configs() {
  const name = await topic("configs");
  expect(await config(name, "cleanup.policy"), "delete", "cleanup.policy");
  const resources = [{ type: ConfigResourceTypes.TOPIC, name, configEntries: [{ name: "retention.ms", value: "7200000" }] }];
  await admin.alterConfigs({ validateOnly: false, resources });
  await until(async () => (await config(name, "retention.ms")) === "7200000", "the change is not seen");
}

const listed = async (group) => (await admin.listGroups()).groups.some(({ groupId }) => groupId === group);

async function groups() {
  const name = await topic("groups", 6);
  const group = fresh("groups");
  const member = await new Member().start(group, name);
  await until(() => share([member], 6), "the member has no partitions");
  expect(await listed(group), true, "the group is listed");
  const [{ state, members }] = (await admin.describeGroups([group])).groups;
  expect([state, members.length], ["Stable", 1], "state and members");
  await member.consumer.disconnect();
}

async function listOffsets() {
  const [found] = await admin.fetchTopicOffsets(await written("offsets"));
  expect([found.low, found.high], ["0", "50"], "earliest and latest");
}

async function deleteRecords() {
  const name = await written("records");
  await admin.deleteTopicRecords({ topic: name, partitions: [{ partition: 0, offset: "30" }] });
  expect((await read(name, 20))[0].offset, "30", "first offset");
}

async function deleteGroup() {
  const name = await written("delete-group", 10);
  const group = fresh("delete-group");
  await readAndCommit(group, name, 10);
  expect(await listed(group), true, "the group is listed");
  await admin.deleteGroups([group]);
  expect(await listed(group), false, "the deleted group is listed");
}

async function deleteTopic() {
  const name = await topic("delete-topic");
  await admin.deleteTopics({ topics: [name] });
  await until(async () => !(await admin.listTopics()).includes(name), "the topic is still there");
}

async function cluster() {
  const { brokers, controller, clusterId } = await admin.describeCluster();
  expect([Boolean(clusterId), brokers.some(({ nodeId }) => nodeId === controller)], [true, true], "id and controller");
}

async function transactions() {
  const name = await topic("transactions");
  const settings = { transactionalId: fresh("tx"), maxInFlightRequests: 1, idempotent: true, retry: { retries: 3 } };
  const producer = kafka.producer(settings);
  const started = Date.now();
  try {
    await producer.connect();
    const transaction = await producer.transaction();
    await transaction.send({ topic: name, messages: [{ value: "v" }] });
    await transaction.commit();
  } catch (error) {
    throw Date.now() - started < AT_ONCE_MS ? new Refused(`${error.name}: ${error.message}`) : error;
  }
  await read(name, 1);
}

const cases = {
  "produce-default": () => roundTrip(values(100)),
  "produce-acks-all": () => roundTrip(values(100), { acks: -1, settings: { idempotent: true } }),
  "codec-gzip": () => roundTrip(values(50, 300), { compression: CompressionTypes.GZIP }),
  "codec-snappy": () => roundTrip(values(50, 300), { compression: CompressionTypes.Snappy }),
  headers,
  "null-key-value": nulls,
  "large-record": () => roundTrip(["x".repeat(1_000_000)]),
  "too-large-refused": tooLarge,
  "auto-create-topic": autoCreate,
  "read-beginning": async () => {
    const name = await written("beginning");
    expect((await read(name, 50)).map((message) => text(message.value)), values(50), "values");
  },
  "read-offset": async () => expect((await read(await written("offset"), 13, 37))[0].offset, "37", "first offset"),
  "read-timestamp": fromTimestamp,
  "group-of-three": three,
  "group-resume": resume,
  "admin-create-topic": createTopic,
  "admin-create-partitions": createPartitions,
  "admin-configs": configs,
  "admin-groups": groups,
  "admin-list-offsets": listOffsets,
  "admin-delete-records": deleteRecords,
  "admin-delete-group": deleteGroup,
  "admin-delete-topic": deleteTopic,
  "admin-cluster": cluster,
  transactions,
};

const lacks = {
  "codec-lz4": "the client needs a package with native code for it",
  "codec-zstd": "the client needs a package with native code for it",
  "group-static": "the client has no static members",
  "group-consumer-protocol": "the client knows the classic protocol only",
};

const { version } = createRequire(import.meta.url)("kafkajs/package.json");
await main("KafkaJS", version, cases, lacks, names);
