// BullMQ on Redis: addBulk, and a worker with many jobs at a time. Jobs are removed when they are completed, as its guide
// advises for throughput.
//
// bullmq.js enqueue|process REDIS_SOCKET JOBS DONE_FILE [BATCH|CONCURRENCY]. Prints what it took as muster-peers does; a
// worker works until SIGTERM, and its time is from its first job to its last.
"use strict";
const fs = require("node:fs");
const { Queue, Worker } = require("bullmq");

const [role, path, jobs, doneFile, size] = process.argv.slice(2);
const connection = { path, maxRetriesPerRequest: null };
const NAME = "jobs";
// Chunks of addBulk on the way at a time.
const CHUNKS = 2;

const now = () => Number(process.hrtime.bigint()) / 1e9; // CLOCK_MONOTONIC
const cpu = () => {
  const used = process.cpuUsage();
  return used.user + used.system;
};

function report(began, ended, cpuUs) {
  console.log(JSON.stringify({ began, ended, cpu_us: cpuUs }));
}

async function enqueue() {
  const queue = new Queue(NAME, { connection });
  await queue.waitUntilReady();
  const began = now(), used = cpu(), batch = Number(size || 1000);
  let next = 0;
  const some = async () => {
    while (next < jobs) {
      const chunk = [];
      for (const end = Math.min(next + batch, Number(jobs)); next < end; next++)
        chunk.push({ name: "lock", data: { n: next, batch: "00000000-0001-8000" }, opts: { removeOnComplete: true } });
      await queue.addBulk(chunk);
    }
  };
  await Promise.all(Array.from({ length: CHUNKS }, some));
  report(began, now(), cpu() - used);
  await queue.close();
}

async function work() {
  const done = Buffer.alloc(Number(jobs));
  let began = 0, ended = 0, used = 0, lastCpu = 0;
  const worker = new Worker(NAME, async (job) => {
    if (!began) {
      began = now();
      used = cpu();
    }
    done[job.data.n]++;
  }, { connection, concurrency: Number(size || 200) });
  worker.on("completed", () => { ended = now(); });
  worker.on("error", (e) => {
    console.error(`bullmq: ${e.message}`);
    process.exit(1);
  });
  await worker.waitUntilReady();
  await new Promise((stop) => process.once("SIGTERM", stop));
  lastCpu = cpu();
  await worker.close();
  fs.writeFileSync(doneFile, done);
  report(began, ended, lastCpu - used);
  process.exit(0);
}

(role === "enqueue" ? enqueue() : work()).catch((e) => {
  console.error(`bullmq: ${e.stack}`);
  process.exit(1);
});
