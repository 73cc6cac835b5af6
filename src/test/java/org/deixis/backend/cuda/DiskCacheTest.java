package org.deixis.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The cache of compiled kernels, without a compiler. */
class DiskCacheTest {
  private static final int BYTES = 5_000;

  @TempDir Path folder;

  private static byte[] content(int value) {
    byte[] bytes = new byte[BYTES];
    Arrays.fill(bytes, (byte) value);
    return bytes;
  }

  @Test
  void damageIsNoticedWhereverItIs() throws IOException {
    Path file = folder.resolve("deeper/image");
    assertNull(DiskCache.sealed(file));
    DiskCache.seal(file, content(7));
    assertArrayEquals(content(7), DiskCache.sealed(file));
    byte[] whole = Files.readAllBytes(file);
    for (int at : new int[] {0, 31, 32, 700, whole.length - 1}) {
      byte[] flipped = whole.clone();
      flipped[at] ^= 1;
      Files.write(file, flipped);
      assertNull(DiskCache.sealed(file), "a bit of byte " + at);
    }
    for (int length : new int[] {0, 1, 31, 32, 33, whole.length - 1}) {
      Files.write(file, Arrays.copyOf(whole, length));
      assertNull(DiskCache.sealed(file), "cut after " + length);
    }
    DiskCache.seal(file, content(8));
    assertArrayEquals(content(8), DiskCache.sealed(file));
  }

  /** As processes that start together do: each compiles and keeps, and reads what others kept. */
  @Test
  void manyWritersLeaveOneWholeFile() throws Exception {
    Path file = folder.resolve("image");
    DiskCache.seal(file, content(1));
    ExecutorService threads = Executors.newFixedThreadPool(4);
    List<Future<?>> all = new ArrayList<>();
    for (int t = 0; t < 4; t++) {
      int value = 1 + t;
      all.add(
          threads.submit(
              () -> {
                for (int i = 0; i < 50; i++) {
                  DiskCache.seal(file, content(value));
                  byte[] read = DiskCache.sealed(file);
                  assertArrayEquals(content(read[0]), read);
                }
              }));
    }
    for (Future<?> one : all) {
      one.get();
    }
    threads.shutdown();
    try (Stream<Path> left = Files.list(folder)) {
      assertEquals(List.of(file), left.toList());
    }
  }

  /** Where it cannot be written, as in a folder that is a file, work goes on. */
  @Test
  void whatCannotBeKeptIsCompiledAgain() throws IOException {
    Path file = Files.createFile(folder.resolve("a file"));
    DiskCache.seal(file.resolve("image"), content(1));
    assertNull(DiskCache.sealed(file.resolve("image")));
    assertTrue(Files.isRegularFile(file));
  }
}
