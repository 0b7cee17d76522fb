// What an application does with ImapFlow: it prints one JSON object of what it saw.
// Environment: IMAP_PORT, IMAP_USER, IMAP_PASSWORD.

import { ImapFlow } from 'imapflow';

const settings = {
    host: '127.0.0.1',
    port: Number(process.env.IMAP_PORT),
    secure: true,
    tls: { rejectUnauthorized: false },
    auth: { user: process.env.IMAP_USER, pass: process.env.IMAP_PASSWORD },
    logger: false
};

const message = (subject, text) => `From: a@example.net\r\nTo: b@example.com\r\nSubject: ${subject}\r\n\r\n${text}\r\n`;

// All folders as a mirror would keep them.
async function mirror(client) {
    const folders = {};
    for (const { path, specialUse } of await client.list()) {
        const lock = await client.getMailboxLock(path);
        try {
            const messages = [];
            const wanted = { uid: true, flags: true, size: true, envelope: true, bodyStructure: true, internalDate: true, source: true };
            if (client.mailbox.exists) {
                for await (const one of client.fetch('1:*', wanted)) {
                    messages.push({
                        uid: one.uid,
                        flags: [...one.flags].sort(),
                        size: one.size,
                        subject: one.envelope.subject,
                        type: one.bodyStructure.type,
                        date: one.internalDate,
                        source: one.source.toString('latin1')
                    });
                }
            }
            folders[path] = { specialUse, uidValidity: String(client.mailbox.uidValidity), uidNext: client.mailbox.uidNext, messages };
        } finally {
            lock.release();
        }
    }
    return folders;
}

const client = new ImapFlow(settings);
await client.connect();
const seen = { capabilities: [...client.capabilities.keys()], enabled: [...client.enabled] };
seen.first = await mirror(client);
seen.again = await mirror(client);

await client.mailboxCreate(['Projekte', 'März']);
seen.appended = await client.append('INBOX', message('by imapflow', 'needle in the hay'), ['\\Flagged'], new Date('2024-02-29T12:00:00Z'));

let lock = await client.getMailboxLock('INBOX');
try {
    seen.found = {
        subject: await client.search({ subject: 'number 2' }, { uid: true }),
        body: await client.search({ body: 'needle' }, { uid: true }),
        either: await client.search({ or: [{ flagged: true }, { subject: 'number 0' }] }, { uid: true }),
        unseen: await client.search({ seen: false }, { uid: true })
    };
    const uids = await client.search({ all: true }, { uid: true });
    await client.messageFlagsAdd(String(uids[0]), ['\\Seen', '$Label'], { uid: true });
    await client.messageFlagsRemove(String(seen.appended.uid), ['\\Flagged'], { uid: true });
    const copied = await client.messageCopy(`${uids[0]}:${uids[1]}`, 'Archive', { uid: true });
    seen.copied = [...copied.uidMap];
    const moved = await client.messageMove(String(uids[1]), 'Projekte/März', { uid: true });
    seen.moved = [...moved.uidMap];
    seen.deleted = await client.messageDelete(String(uids[2]), { uid: true });
    const download = await client.download(String(seen.appended.uid), undefined, { uid: true });
    let size = 0;
    for await (const chunk of download.content) {
        size += chunk.length;
    }
    seen.downloaded = size;
} finally {
    lock.release();
}
seen.status = await client.status('INBOX', { messages: true, unseen: true, uidNext: true });

// A second connection appends while the first one idles.
lock = await client.getMailboxLock('INBOX');
try {
    const heard = new Promise(resolve => client.once('exists', resolve));
    const idling = client.idle();
    const other = new ImapFlow(settings);
    await other.connect();
    await other.append('INBOX', message('while idling', 'hello'));
    const { count, prevCount } = await heard;
    seen.heard = { count, prevCount };
    await client.noop();
    await idling;
    await other.logout();
} finally {
    lock.release();
}
seen.last = await mirror(client);
await client.logout();
console.log(JSON.stringify(seen, (key, value) => (typeof value === 'bigint' ? String(value) : value)));
