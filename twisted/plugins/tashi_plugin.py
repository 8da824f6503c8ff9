"""The control plane and the node agent as twistd plugins: `twistd -n tashi`, `twistd -n tashi-node`."""

from twisted.application.service import ServiceMaker

control_plane = ServiceMaker(
    "tashi",
    "tashi.tap",
    "Tashi's control plane: cluster manager, scheduler, XMPP message sink and publisher",
    "tashi",
)
node_agent = ServiceMaker(
    "tashi-node",
    "tashi.node_tap",
    "Tashi's node agent: starts and watches virtual machines on this machine's libvirt",
    "tashi-node",
)
