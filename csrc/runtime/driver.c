/* slrun: the firmware runtime on a PC.
 *
 *     slrun BUNDLE IN.ppm OUT.ppm     denoise a binary PPM (P6, 8 bits)
 *     slrun --self-test BUNDLE        run the bundle's test vectors
 *
 * Errors are one line on stderr and exit code 1; OUT is complete or untouched. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "starlight_runtime.h"

typedef struct bytes {
    uint8_t *data;
    size_t size;
} bytes;

typedef struct image {
    uint32_t width, height;
    const uint8_t *rgb; /* [height][width][3], within the file's bytes */
} image;

static int complain(const char *what, const char *rule)
{
    (void)fprintf(stderr, "slrun: %s: %s\n", what, rule);
    return 1;
}

static int read_file(const char *path, bytes *content)
{
    FILE *file = fopen(path, "rb");
    size_t room = 1 << 16, got;

    if (file == NULL) return complain(path, strerror(errno));
    content->size = 0;
    content->data = (uint8_t *)malloc(room);
    while (content->data != NULL &&
           (got = fread(content->data + content->size, 1, room - content->size, file)) > 0) {
        content->size += got;
        if (content->size == room) {
            uint8_t *grown =
                room > SIZE_MAX / 2 ? NULL : (uint8_t *)realloc(content->data, room *= 2);
            if (grown == NULL) free(content->data);
            content->data = grown;
        }
    }
    if (content->data == NULL || ferror(file) != 0) {
        const int status = complain(path, "file must be readable and fit the memory");
        (void)fclose(file);
        return status;
    }
    (void)fclose(file);
    return 0;
}

/* Read a number of a PPM header behind white space and comments; 0 when there is none. */
static uint32_t read_number(const bytes *file, size_t *at)
{
    uint32_t value = 0;

    while (*at < file->size) {
        const uint8_t byte = file->data[*at];
        if (byte == '#')
            while (*at < file->size && file->data[*at] != '\n')
                ++*at;
        else if (byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n')
            ++*at;
        else
            break;
    }
    for (; *at < file->size && file->data[*at] >= '0' && file->data[*at] <= '9'; ++*at) {
        value = value * 10 + (uint32_t)(file->data[*at] - '0');
        if (value > SL_FRAME_MAX) return 0;
    }
    return value;
}

static int parse_ppm(const char *path, const bytes *file, image *found)
{
    size_t at = 2;
    uint32_t peak;

    if (file->size < 2 || memcmp(file->data, "P6", 2) != 0)
        return complain(path, "image must be a binary PPM (P6)");
    found->width = read_number(file, &at);
    found->height = read_number(file, &at);
    peak = read_number(file, &at);
    if (found->width == 0 || found->height == 0 || peak != 255 || at == file->size)
        return complain(path, "PPM header must give width and height in 1..65535 and 255");
    at++; /* the one white space that ends the header */
    if (file->size - at != (uint64_t)found->width * found->height * 3)
        return complain(path, "PPM must hold 3 bytes for each pixel and no more");
    found->rgb = file->data + at;
    return 0;
}

static int write_ppm(const char *path, const uint8_t *rgb, const image *like)
{
    const size_t size = (size_t)like->width * like->height * 3;
    char *partial = (char *)malloc(strlen(path) + sizeof ".partial");
    FILE *file;
    int written;

    if (partial == NULL) return complain(path, "memory must suffice");
    (void)strcat(strcpy(partial, path), ".partial");
    file = fopen(partial, "wb");
    written =
        file != NULL &&
        fprintf(file, "P6\n%u %u\n255\n", (unsigned)like->width, (unsigned)like->height) > 0 &&
        fwrite(rgb, 1, size, file) == size;
    if (file != NULL && fclose(file) != 0) written = 0;
    if (!written || rename(partial, path) != 0) {
        (void)complain(path, strerror(errno));
        (void)remove(partial);
        free(partial);
        return 1;
    }
    free(partial);
    return 0;
}

static int refuse(const char *path, const sl_model *model, sl_status status)
{
    (void)fprintf(stderr, "slrun: %s: %s (record %u)\n", path, sl_status_text(status),
                  (unsigned)model->fault);
    return 1;
}

/* An arena of `need` bytes at the strictest alignment; *block is what to free. */
static void *allocate_arena(size_t need, void **block)
{
    *block = need > SIZE_MAX - SL_SECTION_ALIGNMENT ? NULL : malloc(need + SL_SECTION_ALIGNMENT);
    if (*block == NULL) return NULL;
    return (uint8_t *)*block + (SL_SECTION_ALIGNMENT - (uintptr_t)*block % SL_SECTION_ALIGNMENT);
}

static int self_test(const char *path, const sl_model *model)
{
    const sl_vectors_record vectors = sl_vectors(model);
    uint32_t layer = 0;
    void *block = NULL;
    void *arena;
    size_t need;
    sl_status status = sl_arena_bytes(model, vectors.width, vectors.height, &need);

    if (status != SL_OK) return refuse(path, model, status);
    arena = allocate_arena(need, &block);
    if (arena == NULL) return complain(path, "memory must hold the arena");
    status = sl_self_test(model, arena, need, &layer);
    free(block);
    if (status == SL_SELF_TEST_FAILED)
        return complain(sl_name(model, sl_layer(model, layer).name), sl_status_text(status));
    if (status != SL_OK) return refuse(path, model, status);
    (void)printf("%s: %u layers reproduce their test vectors\n", path,
                 (unsigned)vectors.layer_count);
    return 0;
}

static int denoise(const sl_model *model, const char *in_path, const char *out_path)
{
    bytes file = {NULL, 0};
    image in;
    void *block = NULL;
    void *arena;
    uint8_t *out;
    size_t need, stride;
    sl_status status;
    int failed;

    if (read_file(in_path, &file) != 0) return 1;
    if (parse_ppm(in_path, &file, &in) != 0) {
        free(file.data);
        return 1;
    }
    status = sl_arena_bytes(model, in.width, in.height, &need);
    if (status != SL_OK) {
        free(file.data);
        return complain(in_path, sl_status_text(status));
    }
    stride = (size_t)in.width * 3;
    out = (uint8_t *)malloc(stride * in.height);
    arena = allocate_arena(need, &block);
    if (out == NULL || arena == NULL) {
        failed = complain(in_path, "memory must hold arena and output");
    } else {
        status = sl_run(model, in.rgb, stride, out, stride, in.width, in.height, arena, need, NULL,
                        NULL);
        failed = status != SL_OK ? complain(in_path, sl_status_text(status))
                                 : write_ppm(out_path, out, &in);
    }
    free(block);
    free(out);
    free(file.data);
    return failed;
}

int main(int argc, char **argv)
{
    const int testing = argc == 3 && strcmp(argv[1], "--self-test") == 0;
    const char *path = argc < 2 ? "" : argv[testing ? 2 : 1];
    bytes bundle = {NULL, 0};
    sl_model model;
    sl_status status;
    int failed;

    if (!testing && argc != 4)
        return complain("usage", "slrun BUNDLE IN.ppm OUT.ppm | slrun --self-test BUNDLE");
    if (read_file(path, &bundle) != 0) return 1;
    status = sl_open(&model, bundle.data, bundle.size);
    if (status != SL_OK)
        failed = refuse(path, &model, status);
    else
        failed = testing ? self_test(path, &model) : denoise(&model, argv[2], argv[3]);
    free(bundle.data);
    return failed;
}
