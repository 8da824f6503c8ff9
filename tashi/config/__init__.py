"""The configuration: INI files in, one typed ``Config`` out. A lookup is ``config.xmpp.max_command_age``; nothing is global."""

from tashi.config.check import missing
from tashi.config.ldap import LdapSearch
from tashi.config.load import PROGRAMS, load
from tashi.config.model import Config, ConfigError
from tashi.config.sla import SlaClass

__all__ = ["PROGRAMS", "Config", "ConfigError", "LdapSearch", "SlaClass", "load", "missing"]
