// Reads defaults for a model as LM Studio's own SDK does: every key must be one of its schematics,
// and every value must satisfy that key's schema. Prints a line for each file.
//
//     node lm_studio_schema.cjs PATH-OF/@lmstudio/sdk/dist/index.cjs FILE.json…
//
// The schematics are not exported, so the module is loaded with one more line at its end. What it
// requires of other packages is looked for from the current folder; what is not there is left empty.
const fs = require("node:fs");
const { createRequire } = require("node:module");

const [sdk, ...files] = process.argv.slice(2);
const here = createRequire(`${process.cwd()}/`);
const lenient = (name) => {
  try {
    return here(name);
  } catch {
    return {};
  }
};
const module_ = { exports: {} };
const source = `${fs.readFileSync(sdk, "utf8")}\nmodule.exports.schematics = globalConfigSchematics;`;
new Function("require", "module", "exports", source)(lenient, module_, module_.exports);
const schematics = module_.exports.schematics;

let failures = 0;
for (const file of files) {
  const content = JSON.parse(fs.readFileSync(file, "utf8"));
  const fields = [...content.operation.fields, ...content.load.fields];
  try {
    for (const { key, value } of fields) {
      schematics.parseField(schematics.obtainFieldByFullKey(key), value);
    }
    console.log(`${file}: ${fields.length} fields`);
  } catch (error) {
    failures += 1;
    console.log(`${file}: ${error.message}`);
  }
}
process.exit(failures ? 1 : 0);
