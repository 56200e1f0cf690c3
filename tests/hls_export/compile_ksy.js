// A Kaitai description, as JSON on stdin, compiled to Python on stdout.
const { readFileSync } = require("fs");
const compiler = require("kaitai-struct-compiler");

compiler
  .compile("python", JSON.parse(readFileSync(0, "utf8")), null, false)
  .then((files) => process.stdout.write(Object.values(files).join("\n")))
  .catch((error) => {
    process.stderr.write(`${error}\n`);
    process.exitCode = 1;
  });
