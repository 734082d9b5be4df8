// Nodemailer with a pool, as its documentation shows it; see client_process.py for what it says and is told.

import { createInterface } from "node:readline";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const configuration = JSON.parse((await lines.next()).value);
const { default: nodemailer } = await import(configuration.package);
const transport = nodemailer.createTransport({
  pool: true,
  maxConnections: configuration.connections,
  maxMessages: Infinity,
  ...configuration.transport,
});

function* messages({ mode, recipients, tag }) {
  const { sender, batchSize, nameTag, shared, individual } = configuration;
  if (mode === "individual") {
    for (let number = 0; number < recipients; number++) {
      const name = `Robin Reader ${number}`;
      yield {
        from: sender,
        to: `${tag}-${number}@campus.example`,
        subject: individual.subject.replaceAll(nameTag, name),
        text: individual.text.replaceAll(nameTag, name),
      };
    }
    return;
  }
  for (let first = 0; first < recipients; first += batchSize) {
    const to = [];
    for (let number = first; number < Math.min(first + batchSize, recipients); number++) {
      to.push(`${tag}-${number}@campus.example`);
    }
    yield { from: sender, to: sender, envelope: { from: sender, to }, ...shared };
  }
}

/** Send what is left, one message after the other; give how many were accepted for everybody. */
async function work(left) {
  let sent = 0;
  for (const message of left) {
    const { rejected } = await transport.sendMail(message);
    sent += rejected.length === 0 ? 1 : 0;
  }
  return sent;
}

console.log(JSON.stringify({ ready: true }));
for await (const line of lines) {
  const left = messages(JSON.parse(line));
  // Two messages a connection, so that the next one is made while one is sent.
  const workers = Array.from({ length: 2 * configuration.connections }, () => work(left));
  const sent = (await Promise.all(workers)).reduce((sum, each) => sum + each, 0);
  console.log(JSON.stringify({ sent }));
}
transport.close();
