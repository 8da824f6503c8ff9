"""The XMPP door: one client account that takes commands in and tells replies and events out.

The only room that knows wokkel and twisted.words. Nothing here knows what a virtual machine is.
"""
