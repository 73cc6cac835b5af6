package org.deixis.bench;

import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.DoubleSupplier;
import java.util.stream.Stream;
import org.deixis.backend.Backend;
import org.deixis.data.Images;
import org.deixis.data.RgbImage;
import org.deixis.data.SceneMaker;
import org.deixis.data.TextTokenizer;
import org.deixis.infer.ModelFolder;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GuideModel;
import org.deixis.nn.ParameterSource;

/** How long the program takes to begin, and how much of it there is. */
final class FootprintRows {
  private static final String MAIN = "org.deixis.cli.Main";
  private static final String HELP = "deixis --help, whole process";
  private static final String MASK = "first mask of deixis predict, small model, whole process";
  private static final String DEPENDENCIES = "run-time dependencies";
  private static final String INSTALLED = "dependencies' files";
  private static final String JAR = "Deixis' own jar";

  private final Bench bench;

  FootprintRows(Bench bench) {
    this.bench = bench;
  }

  void measure() {
    int times = bench.options().quick() ? 3 : 7;
    if (bench.wants(HELP)) {
      add(HELP, "s", median(times, () -> JavaProcess.run(List.of(MAIN, "--help")).seconds()));
    }
    if (bench.wants(MASK)) {
      firstMask(times);
    }
    sizes();
  }

  private void add(String name, String unit, double value) {
    bench.add(Row.of(Row.Group.FOOTPRINT, name, unit, value));
  }

  private static double median(int times, DoubleSupplier once) {
    double[] seen = new double[times];
    for (int i = 0; i < times; i++) {
      seen[i] = once.getAsDouble();
    }
    Arrays.sort(seen);
    return seen[times / 2];
  }

  /** Both sides start, load a random small model, read a picture, and write its mask. */
  private void firstMask(int times) {
    Path folder = null;
    try {
      folder = Bench.temporaryFolder();
      List<String> predict = predict(folder, bench.backend());
      double ours = median(times, () -> JavaProcess.run(predict).seconds());
      Row row = Row.of(Row.Group.FOOTPRINT, MASK, "s", ours);
      if (bench.peers() != null) {
        Path theirs = folder.resolve("peer");
        List<String> made = List.of("mask", "--folder", theirs.toString());
        peer(Stream.concat(made.stream(), Stream.of("--make")).toList());
        row.peer(Row.PYTORCH, median(times, () -> peer(made)));
      }
      bench.add(row);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } finally {
      GuideRows.delete(folder);
    }
  }

  private double peer(List<String> arguments) {
    long start = System.nanoTime();
    PeerProcess.once(bench.peers().python(), bench.peers().pytorch(), arguments);
    return (System.nanoTime() - start) / 1e9;
  }

  /** A random model and a picture in {@code folder}, and the command that asks it something. */
  static List<String> predict(Path folder, Backend backend) throws IOException {
    Path image = folder.resolve("picture.png");
    SceneMaker.Spec spec = new SceneMaker.Spec(SceneMaker.SIMPLE, 96, 0, 1, 1, 1);
    RgbImage drawn = SceneMaker.scene(spec, SceneMaker.VAL, 0).image();
    Files.write(image, Images.encodePng(drawn));
    Path model = folder.resolve("model");
    try (TextTokenizer words = SceneMaker.tokenizer(SceneMaker.SIMPLE);
        GuideModel random =
            new GuideModel(
                ParameterSource.fresh(backend, 1),
                GresConfig.of("small").withVocab(words.vocabSize(), words.padId()))) {
      ModelFolder.save(model, random, words);
    }
    return List.of(
        MAIN,
        "predict",
        "--model",
        model.toString(),
        "--image",
        image.toString(),
        "--text",
        "the red circle",
        "--device",
        "cpu",
        "--out",
        folder.resolve("found").toString());
  }

  private void sizes() {
    Set<String> artifacts = new TreeSet<>();
    double jars = 0;
    Path own = null;
    for (String entry : System.getProperty("java.class.path").split(File.pathSeparator)) {
      Path path = Path.of(entry);
      String name = path.getFileName().toString();
      if (name.equals("classes") && Files.isDirectory(path)) {
        own = jarBeside(path);
      } else if (name.equals("app.jar") || name.startsWith("deixis-")) {
        own = path;
      } else if (name.endsWith(".jar")) {
        artifacts.add(artifact(name));
        jars += path.toFile().length() / 1048576.0;
      }
    }
    if (own != null && bench.wants(JAR)) {
      add(JAR, "MiB", own.toFile().length() / 1048576.0);
    }
    if (bench.wants(DEPENDENCIES)) {
      Row count = Row.of(Row.Group.FOOTPRINT, DEPENDENCIES, "count", artifacts.size());
      Row size = Row.of(Row.Group.FOOTPRINT, INSTALLED, "MiB", jars);
      if (bench.peers() != null) {
        var installed =
            PeerProcess.once(bench.peers().python(), bench.peers().pytorch(), List.of("installed"));
        count.peer(Row.PYTORCH, installed.get("packages").asDouble());
        size.peer(Row.PYTORCH, installed.get("mib").asDouble());
      }
      bench.add(count);
      bench.add(size);
    }
  }

  /** The library that a jar is of: natives of one platform are not one more. */
  static String artifact(String jar) {
    return jar.replaceFirst("-(linux|macosx|windows)-[a-z0-9_]+\\.jar$", ".jar");
  }

  private static Path jarBeside(Path classes) {
    File[] jars =
        classes
            .toAbsolutePath()
            .getParent()
            .toFile()
            .listFiles((dir, name) -> name.matches("deixis-[0-9.]+\\.jar"));
    return jars == null || jars.length == 0 ? null : jars[0].toPath();
  }
}
