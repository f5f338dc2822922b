sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
for tap in k6t-eth0 svc-eth0; do
    ip tuntap add $tap mode tap user 107 group 107 vnet_hdr
    ip link set $tap addrgenmode none group GROUP
done
ip link set k6t-eth0 address 02:00:00:00:00:00 \
    alias 'tapvisor/2 b320bbede2fb03bc mtu=1500 net/ipv4/ip_forward=0 net/ipv6/conf/all/forwarding=0'
ip addr add 10.0.2.1/24 dev k6t-eth0
ip addr add fd10:0:2::1/120 dev k6t-eth0 nodad
ip addr add fe80::ff:fe00:0/64 dev k6t-eth0 nodad
ip link set k6t-eth0 up
ip -6 route add local ::1 dev k6t-eth0 table local metric 2050
ip link set svc-eth0 up
sysctl -qw net.ipv4.conf.k6t-eth0.route_localnet=1
nft -f - <<'RULES'
table inet tapvisor {
    set pod4-eth0 { type ipv4_addr; }
    set pod6-eth0 { type ipv6_addr; }
    chain guard {
        type filter hook prerouting priority raw; policy accept;
        iifname "k6t-eth0" ip daddr 127.0.0.0/8 counter drop comment "eth0: to 127.0.0.0/8"
        iifname "k6t-eth0" ip saddr != 10.0.2.2 ip saddr != 0.0.0.0 counter drop comment "eth0: not from the guest's IPv4 address"
    }
    chain prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        iifname "eth0" ip daddr @pod4-eth0 counter dnat ip to 10.0.2.2 comment "eth0: inbound V4"
        iifname "eth0" ip6 daddr @pod6-eth0 counter dnat ip6 to fd10:0:2::2 comment "eth0: inbound V6"
    }
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        oifname != "k6t-eth0" ip saddr 10.0.2.2 counter masquerade comment "eth0: outbound V4"
    }
}
table netdev tapvisor {
    chain vm-eth0 {
        type filter hook ingress device "k6t-eth0" priority filter; policy accept;
        @ll,96,16 0x800 udp sport 68 udp dport 67 counter fwd to "svc-eth0" comment "eth0: DHCPv4"
    }
    chain svc-eth0 {
        type filter hook ingress device "svc-eth0" priority filter; policy accept;
        counter fwd to "k6t-eth0" comment "eth0: to k6t-eth0"
    }
}
RULES
