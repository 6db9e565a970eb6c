# A guest of 512 bytes that never stops writing: sector 64 + (n mod 16384) of its boot disk gets the
# number n (little-endian, 32 bits), for n = 1, 2, 3, ..., each when the BIOS says that the one before
# is written. So a disk that lost, doubled or reordered a write does not hold consecutive numbers.
# Says WRITING on the first serial port before the first one, ERROR when the BIOS reports one.
#
#   as --32 -o writer.o writer.S && ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o writer.bin writer.o

.code16
.globl _start
.set buffer, 0x8000
.set ring, 16384
.set first, 64

_start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    cld
    sti
    ljmp $0, $begin
begin:
    movb %dl, drive
    movw $buffer, %di
    movw $256, %cx
    rep stosw
    movw $hello, %si
    call puts
next:
    incl buffer
    movl buffer, %eax
    andl $(ring - 1), %eax
    addl $first, %eax
    movl %eax, packet_lba
    movw $packet, %si
    movw $0x4300, %ax
    movb drive, %dl
    int $0x13
    jnc next
    movw $error, %si
    call puts
halt:
    hlt
    jmp halt

puts:
    lodsb
    testb %al, %al
    jz puts_done
    movb %al, %cl
    movw $0x3fd, %dx
wait:
    inb %dx, %al
    testb $0x20, %al
    jz wait
    movw $0x3f8, %dx
    movb %cl, %al
    outb %al, %dx
    jmp puts
puts_done:
    ret

drive: .byte 0
hello: .asciz "WRITING\n"
error: .asciz "ERROR\n"
    .balign 4
packet:
    .byte 16, 0
    .word 1
    .word buffer, 0
packet_lba:
    .long 0, 0
    .org 510
    .word 0xaa55
