# Has an edu copy inside another function's BAR 2 by bus addresses, with no driver and no
# mapping in between: what a driver that takes bus addresses for granted does.
#
# wire NAME ENGINE MEMORY PATTERN
#   Writes four words from PATTERN on to the BAR's start and others to 0x2000, has the
#   engine fetch the former and store them at the latter, and leaves in /out/NAME.words
#   what the CPU then reads there.

wire() {
    engine=/sys/bus/pci/devices/$2
    memory=/sys/bus/pci/devices/$3
    # Memory decoding and bus mastering: nobody opened these functions.
    for function in "$engine" "$memory"; do
        printf '\006\000' | dd of="$function/config" bs=1 seek=4 conv=notrunc 2> /dev/null
    done
    registers=$(($(sed -n '1s/ .*//p' "$engine/resource")))
    bar=$(($(sed -n '3s/ .*//p' "$memory/resource")))
    for at in 0 8 16 24; do
        devmem $((bar + at)) 64 $(($4 + at))
        devmem $((bar + 0x2000 + at)) 64 0x1111111111111111
    done
    move $((bar)) $((0x40000)) 1
    move $((0x40000)) $((bar + 0x2000)) 3
    for at in 0 8 16 24; do
        devmem $((bar + 0x2000 + at)) 64
    done > "/out/$1.words"
}

# From, to, command: 1 fetches into the engine's buffer at 0x40000, 3 stores from it.
move() {
    devmem $((registers + 0x80)) 64 "$1"
    devmem $((registers + 0x88)) 64 "$2"
    devmem $((registers + 0x90)) 64 32
    devmem $((registers + 0x98)) 64 "$3"
    tries=0
    while [ $(($(devmem $((registers + 0x98)) 64) & 1)) = 1 ] && [ $tries -lt 500 ]; do
        tries=$((tries + 1))
    done
}
