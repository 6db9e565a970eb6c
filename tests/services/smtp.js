// A mail server for tests: submission with STARTTLS and a password. Run by smtp.py.
// smtp.js MODULES CERTIFICATE KEY USER PASSWORD_FILE: prints its port, then each mail as a line of JSON.
'use strict';
const fs = require('fs');
const path = require('path');
const [modules, certificate, key, user, passwordFile] = process.argv.slice(2);
const { SMTPServer } = require(path.join(modules, 'smtp-server'));
const password = fs.readFileSync(passwordFile, 'utf8').trim();

const server = new SMTPServer({
  cert: fs.readFileSync(certificate),
  key: fs.readFileSync(key),
  authMethods: ['PLAIN', 'LOGIN'],
  onAuth(auth, session, done) {
    const good = session.secure && auth.username === user && auth.password === password;
    done(good ? null : new Error('not signed in'), good ? { user } : undefined);
  },
  onData(stream, session, done) {
    const parts = [];
    stream.on('data', (part) => parts.push(part));
    stream.on('end', () => {
      const { mailFrom, rcptTo } = session.envelope;
      process.stdout.write(JSON.stringify({
        from: mailFrom.address,
        to: rcptTo.map((to) => to.address),
        text: Buffer.concat(parts).toString('utf8'),
      }) + '\n');
      done();
    });
  },
});
server.on('error', (error) => process.stderr.write(`${error}\n`));
server.listen(0, '127.0.0.1', () => process.stdout.write(`${server.server.address().port}\n`));
