# A guest of 512 bytes: reads sectors of its disks through the BIOS and tells the serial port what it
# found, so that "a machine boots from this disk" takes a second to test. See README.md.
#
#   as --32 -o bootsector.o bootsector.S && ld -m elf_i386 -Ttext 0x7c00 --oformat binary \
#       -o bootsector.bin bootsector.o

.code16
.globl _start
.set buffer, 0x8000

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
    movw $hello, %si
    call puts
    movb $0x80, drive
next_drive:
    movb drive, %al
    subb $0x80, %al
    cmpb drives, %al
    jae all_read
    xorw %bx, %bx
next_sector:
    cmpb sectors, %bl
    jae drive_done
    movw %bx, %si
    shlw $2, %si
    movl lbas(%si), %eax
    movl %eax, packet_lba
    movb $'D', %al
    call putc
    movb drive, %al
    call puthex8
    movw $text_l, %si
    call puts
    movw $packet_lba + 3, %di
    movw $4, %cx
1:  movb (%di), %al
    call puthex8
    decw %di
    loop 1b
    movb $' ', %al
    call putc
    movb $0x42, %ah
    call disk
    jc 3f
    movw $buffer, %si
    movw $16, %cx
2:  lodsb
    call puthex8
    loop 2b
    jmp 4f
3:  movw $text_error, %si
    call puts
4:  movw $text_end, %si
    call puts
    incw %bx
    jmp next_sector
drive_done:
    incb drive
    jmp next_drive

all_read:
    movl write_lba, %eax
    testl %eax, %eax
    jz done
    movl %eax, packet_lba
    movb $0x80, drive
    movw $buffer, %di
    movw $0x57, %ax             # 'W'
    movw $512, %cx
    rep stosb
    movw $0x4300, %ax
    call disk
    movw $text_wrote, %si
    jnc 5f
    movw $text_error, %si
5:  call puts
    movw $text_end, %si
    call puts
done:
    movw $text_done, %si
    call puts
6:  hlt
    jmp 6b

# The BIOS's disk service %ah on `drive`, with `packet`; keeps %bx.
disk:
    pushw %bx
    movb drive, %dl
    movw $packet, %si
    int $0x13
    popw %bx
    ret

puts:
    lodsb
    testb %al, %al
    jz 7f
    call putc
    jmp puts
7:  ret

puthex8:
    pushw %ax
    shrb $4, %al
    call puthex4
    popw %ax
puthex4:
    andb $15, %al
    cmpb $10, %al
    jb 8f
    addb $39, %al
8:  addb $48, %al
putc:
    pushw %dx
    pushw %ax
    movw $0x3fd, %dx
9:  inb %dx, %al
    testb $0x20, %al
    jz 9b
    popw %ax
    movw $0x3f8, %dx
    outb %al, %dx
    popw %dx
    ret

hello:      .asciz "FARSHORE-BOOT\r\n"
text_l:     .asciz " L"
text_error: .asciz "ERROR"
text_wrote: .asciz "WROTE"
text_end:   .asciz "\r\n"
text_done:  .asciz "DONE\r\n"
drive:      .byte 0x80

packet:     .byte 16, 0
            .word 1
            .word buffer, 0
packet_lba: .long 0, 0

    .org 0x1a0                  # what a test may change
drives:     .byte 1             # disks to read, the boot disk first
sectors:    .byte 2             # entries of `lbas` to read from each
            .word 0
lbas:       .long 1, 2, 0, 0, 0, 0, 0, 0
write_lba:  .long 0             # a sector of the boot disk to fill with 'W'; 0: none
    .org 0x1fe
    .word 0xaa55
