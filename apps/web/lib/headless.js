/** The page that lavit_edge/benchmark/browser.py opens: does the job that its server describes, and hands the report back. */

import { benchmark } from "./benchmark.js";
import { ArtifactError } from "./payload.js";

const post = (name, value) => fetch(name, { method: "POST", body: JSON.stringify(value) });

try {
  const job = await (await fetch("job.json")).json();
  const report = await benchmark({
    ...job,
    condition: async () => (await fetch("condition.json")).json(),
    progress: (what, share) => post("progress", { what, share }).catch(() => {}), // nobody listens any more
  });
  await post("report", report);
} catch (error) {
  await post(error instanceof ArtifactError ? "refused" : "error", error.message || String(error));
}
