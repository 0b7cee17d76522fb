"""The directory's statements, each built once: SQLAlchemy keeps the compiled form of a statement object, and compiling costs more than the
look-up.
"""

from __future__ import annotations

from sqlalchemy import bindparam, func, literal_column, select, update

from fe_twisted.storage.directory.schema import aliases, domains, key_slots, meta

ALIAS = (
    aliases.c.id,
    aliases.c.local,
    domains.c.name,
    aliases.c.state,
    aliases.c.mailbox_id,
    aliases.c.sealing_key,
    aliases.c.location,
    aliases.c.created_at,
    aliases.c.hidden,
)
SLOT = (
    key_slots.c.id,
    key_slots.c.kind,
    key_slots.c.label,
    key_slots.c.kdf,
    key_slots.c.salt,
    key_slots.c.wrapped,
    key_slots.c.created_at,
)
AT_HOME = aliases.c.domain_id == domains.c.id

BY_ADDRESS = select(*ALIAS).where(AT_HOME, domains.c.name == bindparam("domain"), aliases.c.local == bindparam("local"))
#: At most two rows: our domain is one of them at least, with an empty alias when there is none of either name.
RECIPIENT = (
    select(domains.c.id, *ALIAS)
    .select_from(domains.outerjoin(aliases, AT_HOME & aliases.c.local.in_((bindparam("local"), bindparam("base")))))
    .where(domains.c.name == bindparam("domain"))
)
LOGIN = (
    select(*ALIAS, *SLOT)
    .select_from(domains.join(aliases, AT_HOME).outerjoin(key_slots, key_slots.c.alias_id == aliases.c.id))
    .where(domains.c.name == bindparam("domain"), aliases.c.local == bindparam("local"))
    .order_by(key_slots.c.id)
)
OWNER = select(*ALIAS).where(AT_HOME, aliases.c.mailbox_id == bindparam("mailbox"))
ELSEWHERE = select(aliases.c.mailbox_id, aliases.c.location).where(
    aliases.c.mailbox_id.is_not(None), aliases.c.location != bindparam("location")
)
LOCATIONS = select(aliases.c.location, func.count()).group_by(aliases.c.location)
# In these two the constants are written out, so that the planner sees which partial index has just these rows in this order.
POSTMASTER_NAMED = select(*ALIAS).where(AT_HOME, aliases.c.local == literal_column("'postmaster'")).order_by(aliases.c.domain_id).limit(1)
POSTMASTER_OLDEST = (
    select(*ALIAS)
    .where(AT_HOME, aliases.c.state == literal_column("'enabled'"), aliases.c.mailbox_id.is_not(None))
    .order_by(aliases.c.domain_id, aliases.c.id)
    .limit(1)
)
OF_DOMAIN = domains.c.name == bindparam("domain")
# By the domain's id rather than by a condition on the join, or PostgreSQL walks the index through the domains before it.
IN_DOMAIN = aliases.c.domain_id == select(domains.c.id).where(OF_DOMAIN).correlate(None).scalar_subquery()
POSTMASTERS = {
    True: (POSTMASTER_NAMED.where(IN_DOMAIN), POSTMASTER_OLDEST.where(IN_DOMAIN)),
    False: (POSTMASTER_NAMED, POSTMASTER_OLDEST),
}
DOMAIN = select(domains.c.id, domains.c.name, domains.c.account_id).where(OF_DOMAIN)
SLOTS = select(*SLOT).where(key_slots.c.alias_id == bindparam("alias")).order_by(key_slots.c.id)
GENERATION = select(meta.c.generation)
SHARED = select(meta.c.shared_secret)
COUNT_UP = update(meta).values(generation=meta.c.generation + 1)
