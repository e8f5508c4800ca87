// The steps of customer.py, with the client for Node: `node customer.mjs TRAINING_FILE_ID RUN`.
import { createReadStream, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI, { APIError, toFile } from "openai";

const MODEL = "tiny";
const POLL_MILLISECONDS = 200;
const ENDED = ["succeeded", "failed", "cancelled"];

const tell = (step, found) => console.log(JSON.stringify({ step, found: found ?? null }));

const rows = (first, count) =>
  Array.from({ length: count }, (_, index) => first + index)
    .map((number) => ({
      messages: [
        { role: "user", content: `tap ${number}?` },
        { role: "assistant", content: `Turn it ${number}.` },
      ],
    }))
    .map((row) => JSON.stringify(row) + "\n")
    .join("");

async function wait(client, jobId, statuses) {
  for (;;) {
    const job = await client.fineTuning.jobs.retrieve(jobId);
    if (statuses.includes(job.status)) return job;
    await sleep(POLL_MILLISECONDS);
  }
}

async function all(page) {
  const found = [];
  for await (const each of page) found.push(each);
  return found;
}

async function refusal(step, call) {
  try {
    await call();
    tell(`refused: ${step}`, "it was not");
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    tell(`refused: ${step}`, [error.constructor.name, error.status, error.code, error.param, error.type]);
  }
}

async function lookAtModels(client) {
  tell("models", (await all(client.models.list())).some((model) => model.id === MODEL));
  tell("model", await client.models.retrieve(MODEL));
}

async function uploadFromDisk(client, content) {
  const folder = mkdtempSync(join(tmpdir(), "customer-"));
  try {
    const path = join(folder, "disk.jsonl");
    writeFileSync(path, content);
    return await client.files.create({ file: createReadStream(path), purpose: "fine-tune" });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function uploadFromStream(client, content) {
  return await client.files.create({
    file: await toFile(Readable.from([Buffer.from(content)]), "stream.jsonl"),
    purpose: "fine-tune",
    expires_after: { anchor: "created_at", seconds: 7200 },
  });
}

async function lookAtFiles(client, files) {
  for (const file of files) {
    const found = await client.files.retrieve(file.id);
    const lasts = found.expires_at === null ? null : found.expires_at - found.created_at;
    tell("file", [found.object, found.bytes, found.filename, found.purpose, found.status, lasts]);
    tell("content", await (await client.files.content(file.id)).text());
  }
  const own = new Set(files.map((file) => file.id));
  const page = await client.files.list({ purpose: "fine-tune", order: "asc", limit: 1000 });
  tell("files", page.data.filter((file) => own.has(file.id)).map((file) => file.filename).sort());
}

const start = (client, fileId, run) =>
  client.fineTuning.jobs.create({
    model: MODEL,
    training_file: fileId,
    metadata: { run },
    method: { type: "supervised", supervised: { hyperparameters: { n_epochs: 50, batch_size: 4 } } },
  });

async function pauseResumeAndCancel(client, job) {
  await wait(client, job.id, ["queued", "running"]);
  await client.fineTuning.jobs.pause(job.id);
  tell("paused", (await wait(client, job.id, ["paused", ...ENDED])).status);
  tell("resumed", (await client.fineTuning.jobs.resume(job.id)).status);
  await client.fineTuning.jobs.cancel(job.id);
  const cancelled = await wait(client, job.id, ENDED);
  tell("cancelled", [cancelled.status, cancelled.fine_tuned_model, cancelled.error]);
}

async function lookAtFailure(client, job) {
  const failed = await wait(client, job.id, ENDED);
  tell("failed", [failed.status, failed.error]);
  const events = await all(client.fineTuning.jobs.listEvents(job.id));
  tell("why", events.filter((event) => event.level === "error").map((event) => event.message));
}

async function lookAtSuccess(client, jobId) {
  const job = await wait(client, jobId, ENDED);
  tell("job", job);
  tell("events", await all(client.fineTuning.jobs.listEvents(jobId, { limit: 4 })));
  tell("checkpoints", await all(client.fineTuning.jobs.checkpoints.list(jobId, { limit: 1 })));
  tell("result", await (await client.files.content(job.result_files[0])).text());
  tell("fine-tuned model", await client.models.retrieve(job.fine_tuned_model));
}

async function lookAtRefusals(client, fileId) {
  const jobs = client.fineTuning.jobs;
  const asked = { model: MODEL, training_file: fileId };
  await refusal("unknown job", () => jobs.retrieve("ftjob-unknown"));
  await refusal("unknown file", () => client.files.content("file-unknown"));
  await refusal("unknown model", () => jobs.create({ ...asked, model: "gpt-4o-mini" }));
  await refusal("unknown training file", () => jobs.create({ ...asked, training_file: "file-unknown" }));
  await refusal("purpose", async () =>
    client.files.create({ file: await toFile(Buffer.from("{}"), "a.jsonl"), purpose: "batch" }),
  );
  await refusal("epochs", () => jobs.create({ ...asked, hyperparameters: { n_epochs: 99 } }));
  await refusal("reinforcement", () => jobs.create({ ...asked, method: { type: "reinforcement" } }));
  await refusal("base model", () => client.models.delete(MODEL));
  await refusal("key", () => new OpenAI({ apiKey: "sk-wrong" }).models.list());
}

async function remove(client, files) {
  for (const file of files) {
    const deleted = await client.files.delete(file.id);
    tell("deleted", [deleted.object, deleted.deleted]);
  }
  await refusal("deleted file", () => client.files.retrieve(files[0].id));
}

const [trainingFile, run] = process.argv.slice(2);
const client = new OpenAI();
// the key lets a script that is started twice have one job
const mainJob = await client.fineTuning.jobs.create(
  {
    model: MODEL,
    training_file: trainingFile,
    suffix: "taps",
    seed: 7,
    metadata: { team: "taps" },
    method: { type: "supervised", supervised: { hyperparameters: { n_epochs: 1, batch_size: 4 } } },
  },
  { headers: { "Idempotency-Key": "taps-1" } },
);
await lookAtModels(client);
const files = [
  await uploadFromDisk(client, rows(0, 12)),
  await uploadFromStream(client, rows(0, 12) + '{"messages": []}\n'),
];
await lookAtFiles(client, files);
const stopped = await start(client, files[0].id, run);
const broken = await start(client, files[1].id, run);
await pauseResumeAndCancel(client, stopped);
await lookAtFailure(client, broken);
const jobs = await all(client.fineTuning.jobs.list({ limit: 1, metadata: { run } }));
tell("jobs", jobs.map((job) => [job.status, job.id === stopped.id]).sort());
await lookAtSuccess(client, mainJob.id);
await lookAtRefusals(client, files[0].id);
await remove(client, files);
