package org.deixis.backend.cpu;

import org.deixis.backend.Array;
import org.deixis.backend.PatchGather;
import org.deixis.core.DType;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Lookup, patches, resizing and pooling against the reference in double precision. */
class CpuGeometryTest {
  @ParameterizedTest
  @CsvSource({"20, 100, 64", "1, 1, 1", "500, 7, 33", "160, 3000, 48", "0, 5, 4", "3, 2, 20000"})
  void embedding(int n, int rows, int width) {
    Compare.of(CpuGeometry::new)
        .check(
            t -> {
              Array ids = t.whole(DType.I32, rows, n);
              Array table = t.input(rows, width);
              Array dy = t.input(n, width);
              Array y = t.result("y", n, width);
              Array dTable = t.result("dTable", rows, width);
              return new Compare.Runs<>(
                  backend -> {
                    backend.embedding(ids, table, y);
                    backend.embeddingBackward(ids, dy, dTable);
                  },
                  cpu -> {
                    cpu.embedding(ids, table, y);
                    cpu.embeddingBackward(ids, dy, dTable);
                  });
            });
  }

  @ParameterizedTest
  @CsvSource({
    "2, 24, 24, 4",
    "1, 23, 37, 4",
    "3, 1, 1, 2",
    "1, 65, 64, 16",
    "2, 9, 7, 3",
    "0, 8, 8, 4"
  })
  void patches(int batch, int height, int width, int patch) {
    PatchGather s =
        new PatchGather(
            batch, height, width, patch, PatchGather.IMAGENET_MEAN, PatchGather.IMAGENET_STD);
    int columns = 3 * patch * patch;
    Compare.of(CpuGeometry::new)
        .check(
            t -> {
              Array x = t.input(batch, 3, height, width);
              Array bytes = t.whole(DType.U8, 256, batch, height, width, 3);
              Array y = t.result("y", batch, s.rows(), s.columns(), columns);
              Array z = t.result("z", batch, s.rows(), s.columns(), columns);
              Array dy = t.input(batch, s.rows(), s.columns(), columns);
              Array dx = t.result("dx", batch, 3, height, width);
              return new Compare.Runs<>(
                  backend -> {
                    backend.patchGather(s, x, y);
                    backend.patchGather(s, bytes, z);
                    backend.patchScatter(s, dy, dx);
                  },
                  cpu -> {
                    cpu.patchGather(s, x, y);
                    cpu.patchGather(s, bytes, z);
                    cpu.patchScatter(s, dy, dx);
                  });
            });
  }

  @ParameterizedTest
  @CsvSource({"2, 8, 8, 16", "1, 7, 5, 3", "1, 1, 1, 1", "3, 14, 13, 96", "0, 4, 4, 8"})
  void merge(int batch, int height, int width, int channels) {
    int rows = (height + 1) / 2;
    int columns = (width + 1) / 2;
    Compare.of(CpuGeometry::new)
        .check(
            t -> {
              Array x = t.input(batch, height, width, channels);
              Array y = t.result("y", batch, rows, columns, 4 * channels);
              Array dy = t.input(batch, rows, columns, 4 * channels);
              Array dx = t.result("dx", batch, height, width, channels);
              return new Compare.Runs<>(
                  backend -> {
                    backend.mergeGather(batch, height, width, channels, x, y);
                    backend.mergeScatter(batch, height, width, channels, dy, dx);
                  },
                  cpu -> {
                    cpu.mergeGather(batch, height, width, channels, x, y);
                    cpu.mergeScatter(batch, height, width, channels, dy, dx);
                  });
            });
  }

  @ParameterizedTest
  @CsvSource({
    "2, 6, 6, 96, 24, 24", "1, 5, 7, 3, 11, 13", "3, 1, 1, 1, 4, 5", "1, 13, 9, 1, 5, 4",
    "2, 12, 10, 17, 12, 10", "1, 20, 30, 8, 3, 2", "1, 7, 7, 512, 14, 14", "2, 9, 2, 1, 9, 40",
    "0, 2, 2, 2, 4, 4"
  })
  void resize(int batch, int height, int width, int channels, int outHeight, int outWidth) {
    Compare.of(CpuGeometry::new)
        .check(
            t -> {
              Array x = t.input(batch, height, width, channels);
              Array y = t.result("y", batch, outHeight, outWidth, channels);
              Array sum = t.both("sum", t.input(batch, outHeight, outWidth, channels));
              Array dy = t.input(batch, outHeight, outWidth, channels);
              Array dx = t.result("dx", batch, height, width, channels);
              return new Compare.Runs<>(
                  backend -> {
                    backend.resize(
                        batch, height, width, channels, outHeight, outWidth, false, x, y);
                    backend.resize(
                        batch, height, width, channels, outHeight, outWidth, true, x, sum);
                    backend.resizeBackward(
                        batch, height, width, channels, outHeight, outWidth, dy, dx);
                  },
                  cpu -> {
                    cpu.resize(batch, height, width, channels, outHeight, outWidth, false, x, y);
                    cpu.resize(batch, height, width, channels, outHeight, outWidth, true, x, sum);
                    cpu.resizeBackward(batch, height, width, channels, outHeight, outWidth, dy, dx);
                  });
            });
  }

  @ParameterizedTest
  @CsvSource({
    "2, 96, 96, 2, 4",
    "1, 7, 5, 2, 2",
    "3, 3, 5, 4, 4",
    "1, 1, 1, 1, 1",
    "1, 37, 61, 16, 8",
    "0, 8, 8, 2, 2"
  })
  void pooling(int batch, int height, int width, int rows, int columns) {
    Compare.of(CpuGeometry::new)
        .check(
            t -> {
              Array x = t.input(batch, height, width);
              Array mask = t.whole(DType.U8, 2, batch, height, width);
              Array y = t.result("y", batch, rows * columns);
              Array share = t.result("share", batch, rows * columns);
              Array dy = t.input(batch, rows * columns);
              Array dx = t.result("dx", batch, height, width);
              return new Compare.Runs<>(
                  backend -> {
                    backend.regionPool(batch, height, width, rows, columns, x, y);
                    backend.regionPool(batch, height, width, rows, columns, mask, share);
                    backend.regionPoolBackward(batch, height, width, rows, columns, dy, dx);
                  },
                  cpu -> {
                    cpu.regionPool(batch, height, width, rows, columns, x, y);
                    cpu.regionPool(batch, height, width, rows, columns, mask, share);
                    cpu.regionPoolBackward(batch, height, width, rows, columns, dy, dx);
                  });
            });
  }
}
