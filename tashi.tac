# The control plane of one cell:  twistd -ny tashi.tac      (daemonised: twistd -l tashi-occi-xmpp.log -y tashi.tac)
import os
import sys

# twistd does not look beside the file it runs
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from twisted.application import service  # noqa: E402
from twisted.internet import reactor  # noqa: E402

from tashi.app import control_plane  # noqa: E402

application = service.Application("tashi")
control_plane(reactor).setServiceParent(service.IServiceCollection(application))
