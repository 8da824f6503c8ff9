-- A Prosody for a Tashi cell of your own: the lines that matter, to be merged into /etc/prosody/prosody.cfg.lua.
-- Replace example.org. (`tashi sandbox` writes a private one for trials by itself.)

modules_enabled = {
    "roster", "saslauth", "tls", "disco", "posix", "ping",
    "smacks",  -- XEP-0198: the control plane knows by it what has arrived
    "carbons", "pep", "vcard4",
}
-- No "register": who may send commands is decided by JID, so accounts are made by the administrator only:
--     prosodyctl adduser tashi@example.org     the control plane: [XMPP] jid and pwd
--     prosodyctl adduser ism@example.org       may act for any user when listed in [XMPP] trusted
--     prosodyctl adduser llms@example.org      gets every event when listed in [XMPP] recipient

authentication = "internal_hashed"  -- SCRAM; PLAIN inside TLS for clients that know no SCRAM
c2s_require_encryption = true

-- Bursts of commands and events come from these accounts: do not slow them down, and keep what they miss.
modules_disabled = { "limits" }
c2s_stanza_size_limit = 262144
storage_archive_item_limit = 1000000

VirtualHost "example.org"
    -- certificate: prosodyctl --root cert import example.org /path/to/certificates

-- Events as publish-subscribe items, too: [XMPP] pubsubService = pubsub.example.org
Component "pubsub.example.org" "pubsub"
    admins = { "tashi@example.org" }
    pubsub_max_items = 10000
