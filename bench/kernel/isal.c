/*
 * Intel's ISA-L as a peer: multiplies the matrix it is given, so that its answers can be held to the same bytes.
 *
 * Usage: isal INPUTS OUTPUTS SHARD_BYTES MATRIX DATA ANSWER
 * MATRIX holds INPUTS bytes for each output, DATA the input shards one after the other. For each line "REPEATS" on stdin
 * it computes the outputs that often, writes them to the file ANSWER, and prints the wall and the CPU seconds it took.
 */
#include <isa-l/erasure_code.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static unsigned char *read_file(const char *name, size_t bytes)
{
    unsigned char *content = aligned_alloc(64, (bytes + 63) / 64 * 64);
    FILE *file = fopen(name, "rb");
    if (content == NULL || file == NULL || fread(content, 1, bytes, file) != bytes)
        exit(3);
    fclose(file);
    return content;
}

int main(int count, char **words)
{
    if (count != 7)
        return 2;
    const int inputs = atoi(words[1]), outputs = atoi(words[2]), length = atoi(words[3]);
    unsigned char *matrix = read_file(words[4], (size_t)inputs * outputs);
    unsigned char *data = read_file(words[5], (size_t)inputs * length);
    unsigned char *answer = aligned_alloc(64, ((size_t)outputs * length + 63) / 64 * 64);
    unsigned char *tables = malloc((size_t)32 * inputs * outputs);
    unsigned char *from[256], *to[256];
    for (int i = 0; i < inputs; i++)
        from[i] = data + (size_t)i * length;
    for (int o = 0; o < outputs; o++)
        to[o] = answer + (size_t)o * length;
    char line[32];
    while (fgets(line, sizeof line, stdin) != NULL) {
        memset(answer, 0, (size_t)outputs * length);
        const double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
        for (int repeats = atoi(line); repeats > 0; repeats--) {
            ec_init_tables(inputs, outputs, matrix, tables);
            ec_encode_data(length, inputs, outputs, tables, from, to);
        }
        const double wall_taken = seconds(CLOCK_MONOTONIC) - wall, cpu_taken = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        FILE *file = fopen(words[6], "wb");
        if (file == NULL || fwrite(answer, length, outputs, file) != (size_t)outputs || fclose(file) != 0)
            return 3;
        printf("%.9f %.9f\n", wall_taken, cpu_taken);
        fflush(stdout);
    }
    return 0;
}
