# The settings of a new network namespace on a machine without local configuration. The kernel copies the machine's own IPv4
# settings, and with net.core.devconf_inherit_init_net those of IPv6, into each: on a Docker or Kubernetes host they forward.
set_all() { # VALUE FILE...
    value=$1
    shift
    for file in "$@"; do
        [ ! -e "$file" ] || echo "$value" >"$file"
    done
}
# First: it writes settings of links.
set_all 0 /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding
for conf in all default lo; do
    cd "/proc/sys/net/ipv4/conf/$conf"
    set_all 1 accept_redirects send_redirects secure_redirects shared_media
    set_all 0 rp_filter route_localnet accept_local proxy_arp proxy_arp_pvlan arp_accept arp_announce arp_filter arp_ignore \
        arp_notify log_martians src_valid_mark drop_gratuitous_arp drop_unicast_in_l2_multicast disable_xfrm disable_policy
done
for conf in all default; do
    [ -d "/proc/sys/net/ipv6/conf/$conf" ] || continue
    cd "/proc/sys/net/ipv6/conf/$conf"
    set_all 1 accept_ra accept_redirects autoconf accept_ra_defrtr accept_ra_pinfo
    set_all 0 disable_ipv6 forwarding addr_gen_mode use_tempaddr proxy_ndp
done
set_all 0 /proc/sys/net/ipv6/conf/all/accept_dad /proc/sys/net/bridge/bridge-nf-call-*tables
set_all 1 /proc/sys/net/ipv6/conf/default/accept_dad
cd /
ip link set lo up
