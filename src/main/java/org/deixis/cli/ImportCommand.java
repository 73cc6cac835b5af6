package org.deixis.cli;

import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.PathMatcher;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.regex.PatternSyntaxException;
import org.deixis.backend.Backends;
import org.deixis.core.InputException;
import org.deixis.core.Shape;
import org.deixis.data.TextTokenizer;
import org.deixis.io.Checkpoint;
import org.deixis.io.Checkpoints;
import org.deixis.model.bert.TextConfig;
import org.deixis.model.gres.GresConfig;
import org.deixis.weights.ModelImport;
import org.deixis.weights.NameMap;
import org.deixis.weights.PublishedConfig;
import org.deixis.weights.Verification;
import org.deixis.weights.WeightImport;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

@Command(
    name = "import",
    description =
        "Makes a model folder of published encoders: a Swin (timm, torchvision, Microsoft, Detectron2, Hugging Face)"
            + " and a BERT or RoBERTa (Hugging Face), in safetensors, PyTorch's or NumPy's formats.",
    footer = {
      "",
      "  deixis import --vision swin_base.safetensors --text bert-base-uncased/ --config swin-b+bert-base --out model",
      "  deixis import --inspect swin_base.pth",
      "",
      "docs/weights.md says what is recognised and how to prove parity."
    })
final class ImportCommand extends BaseCommand {
  private static final Map<String, String> ALIASES =
      Map.of("swin-b+bert-base", "guide-swin-b", "swin-t+bert-base", "guide-swin-t");
  private static final String WORDS = "embeddings.word_embeddings.weight";

  /** Names of a list that the table shows. */
  private static final int SHOWN = 8;

  @Option(names = "--vision", paramLabel = "FILE", description = "Checkpoint of the Swin.")
  private Path vision;

  @Option(
      names = "--text",
      paramLabel = "FILE",
      description = "Checkpoint of the text encoder, or its Hugging Face folder.")
  private Path text;

  @Option(
      names = "--whole",
      paramLabel = "FILE",
      description = "Checkpoint of a whole model by our own names, instead of the two.")
  private Path whole;

  @Option(
      names = "--tokenizer",
      paramLabel = "FILE",
      description = "tokenizer.json or vocab.txt. Default: beside the text checkpoint.")
  private Path tokenizer;

  @Option(
      names = "--config",
      paramLabel = "NAME",
      description = "Configuration: a bundled name, swin-b+bert-base, swin-t+bert-base, or a file.")
  private String config;

  @Option(
      names = "--image-size",
      paramLabel = "N",
      description = "Side of the pictures, over the configuration's.")
  private Integer imageSize;

  @Option(
      names = "--window",
      paramLabel = "N",
      description = "Swin's window, over the configuration's; position tables are resized.")
  private Integer window;

  @Option(names = "--out", paramLabel = "DIR", description = "Model folder to make.")
  private Path folder;

  @Option(
      names = "--allow-missing",
      paramLabel = "GLOB",
      description =
          "Parameters that may be missing, and are drawn anew: names such as"
              + " vision.layers.3.*; may be given several times.")
  private List<String> allowMissing = List.of();

  @Option(
      names = "--seed",
      paramLabel = "N",
      defaultValue = "1",
      description = "Of what is drawn anew. Default: ${DEFAULT-VALUE}.")
  private long seed;

  @Option(
      names = "--verify",
      paramLabel = "FILE",
      description = "Outputs by weights-tools/export_reference.py that the encoders must meet.")
  private Path reference;

  @Option(
      names = "--inspect",
      paramLabel = "FILE",
      description = "Lists what a checkpoint holds, and does nothing else.")
  private Path inspect;

  private final long begun = System.nanoTime();

  /** From the start of the command until the model is written, without the verification. */
  private double seconds;

  @Override
  public Integer call() {
    if (inspect != null) {
      inspect();
      return 0;
    }
    require("--config", config);
    require("--out", folder);
    if (whole == null && (vision == null || text == null)) {
      throw new InputException("give --vision and --text, or --whole, or --inspect");
    }
    if (whole != null && (vision != null || text != null)) {
      throw new InputException(
          "--whole stands for both --vision and --text; give one or the other");
    }
    if (whole != null) {
      whole();
    } else {
      encoders();
    }
    out.printf(Locale.ROOT, "%s  written in %.1f s%n", folder, seconds);
    return 0;
  }

  private static void require(String option, Object value) {
    if (value == null) {
      throw new InputException(option + " is missing; see deixis import --help");
    }
  }

  private void inspect() {
    try (Checkpoint c = Checkpoints.open(inspect)) {
      long elements = 0;
      long bytes = 0;
      for (Map.Entry<String, Checkpoint.Entry> e : c.entries().entrySet()) {
        Checkpoint.Entry t = e.getValue();
        out.printf(
            Locale.ROOT, "%-72s %-11s %-22s %,14d%n", e.getKey(), t.type(), t.shape(), t.bytes());
        elements += t.shape().size();
        bytes += t.bytes();
      }
      out.printf(
          Locale.ROOT,
          "%s: %s, %,d tensors, %,d values, %,d bytes%n",
          inspect,
          c.format(),
          c.entries().size(),
          elements,
          bytes);
    }
  }

  private GresConfig configured() {
    GresConfig c = GresConfig.of(ALIASES.getOrDefault(config, config));
    if (imageSize == null && window == null) {
      return c;
    }
    return c.withPictures(
        imageSize == null ? c.imageHeight() : imageSize,
        imageSize == null ? c.imageWidth() : imageSize,
        window == null ? c.swin() : c.swin().withWindow(window));
  }

  private TextTokenizer tokenizer(Path beside) {
    if (tokenizer != null) {
      return TextTokenizer.load(tokenizer);
    }
    Path here = Files.isDirectory(beside) ? beside : beside.toAbsolutePath().getParent();
    for (String name : new String[] {"tokenizer.json", "vocab.txt"}) {
      if (Files.isRegularFile(here.resolve(name))) {
        return TextTokenizer.load(here.resolve(name));
      }
    }
    throw new InputException(
        "no tokenizer.json or vocab.txt beside " + beside + "; give --tokenizer FILE");
  }

  private void encoders() {
    GresConfig plain = configured();
    PublishedConfig.check(vision, plain.swin());
    PublishedConfig.check(text, plain.text());
    try (Checkpoint v = Checkpoints.unwrapped(Checkpoints.open(vision));
        Checkpoint t = Checkpoints.unwrapped(Checkpoints.open(text));
        TextTokenizer words = tokenizer(text)) {
      NameMap visionMap = NameMap.recognise(vision.toString(), v.entries().keySet(), "vision", "");
      NameMap textMap =
          NameMap.recognise(
              text.toString(), t.entries().keySet(), "text", plain.text().kind().name());
      GresConfig c = plain.withVocab(vocabulary(t, textMap, plain.text()), words.padId());
      ModelImport model = new ModelImport(Backends.get("reference"), c);
      List<PathMatcher> allowed = allowed(model);
      take(model, "vision.", vision, v, visionMap, allowed);
      take(model, "text.", text, t, textMap, allowed);
      write(model, words);
      out.printf("%d parameters that no encoder has are drawn with seed %d%n", model.fresh(), seed);
    }
  }

  private void whole() {
    GresConfig plain = configured();
    try (Checkpoint w = Checkpoints.open(whole);
        TextTokenizer words = tokenizer(whole)) {
      NameMap map = NameMap.recognise(whole.toString(), w.entries().keySet(), "", "");
      Checkpoint.Entry table = w.entries().get("text." + WORDS);
      boolean follows = table != null && table.shape().rank() == 2 && table.shape().dim(0) > 0;
      int rows = follows ? table.shape().dim(0) : plain.text().vocab();
      ModelImport model =
          new ModelImport(Backends.get("reference"), plain.withVocab(rows, words.padId()));
      take(model, "", whole, w, map, allowed(model));
      write(model, words);
    }
  }

  private void write(ModelImport model, TextTokenizer words) {
    model.write(
        folder,
        words,
        seed,
        written -> {
          seconds = (System.nanoTime() - begun) / 1e9;
          if (reference != null) {
            verify(written);
          }
        });
  }

  /** What {@link #allowMissing} means; each must name something that could be missing. */
  private List<PathMatcher> allowed(ModelImport model) {
    List<PathMatcher> allowed = new ArrayList<>();
    for (String glob : allowMissing) {
      PathMatcher matcher;
      try {
        matcher = FileSystems.getDefault().getPathMatcher("glob:" + glob);
      } catch (PatternSyntaxException e) {
        throw new InputException(
            "--allow-missing: '%s' is no pattern: %s; give a name such as vision.layers.3.*"
                .formatted(glob, e.getDescription()),
            e);
      }
      if (model.wanted("").keySet().stream().noneMatch(n -> matcher.matches(Path.of(n)))) {
        throw new InputException(
            "--allow-missing: '%s' names no parameter of the model; give one such as vision.layers.3.*"
                .formatted(glob));
      }
      allowed.add(matcher);
    }
    return allowed;
  }

  /** Rows of the checkpoint's word table, which the configuration follows. */
  private static int vocabulary(Checkpoint text, NameMap map, TextConfig config) {
    for (Map.Entry<String, Checkpoint.Entry> e : text.entries().entrySet()) {
      NameMap.Target target = map.ignores(e.getKey()) ? null : map.target(e.getKey());
      Shape shape = e.getValue().shape();
      if (target != null && target.name().equals(WORDS) && shape.rank() == 2 && shape.dim(0) > 0) {
        return shape.dim(0);
      }
    }
    return config.vocab();
  }

  private void take(
      ModelImport model,
      String prefix,
      Path file,
      Checkpoint c,
      NameMap map,
      List<PathMatcher> allowed) {
    WeightImport source =
        new WeightImport(
            file.toString(),
            c,
            map,
            model.wanted(prefix),
            name -> allowed.stream().anyMatch(m -> m.matches(Path.of(prefix + name))));
    model.take(prefix, source);
    out.printf("%s: %s, %s%n", file, source.source(), c.format());
    out.printf("  matched     %d%n", source.matched());
    list("missing", source.missing());
    list("unexpected", source.unexpected());
    list("reshaped", source.reshaped());
    if (source.resizedWindow() > 0) {
      out.printf(
          "    its tables are of window %d; --window %1$d keeps them as they are%n",
          source.resizedWindow());
    }
    out.printf("  ignored     %d (buffers and heads)%n", source.ignored().size());
  }

  private void list(String what, List<String> names) {
    out.printf("  %-11s %d%n", what, names.size());
    names.stream().limit(SHOWN).forEach(n -> out.println("    " + n));
    if (names.size() > SHOWN) {
      out.println("    and " + (names.size() - SHOWN) + " more");
    }
  }

  private void verify(Path written) {
    Map<String, Double> off = Verification.run(written, reference, Backends.get("cpu"));
    off.forEach((name, d) -> out.printf(Locale.ROOT, "  %-18s off by %.1e%n", name, d));
    for (Map.Entry<String, Double> e : off.entrySet()) {
      if (!(e.getValue() <= Verification.TOLERANCE)) {
        throw new InputException(
            String.format(
                Locale.ROOT,
                "%s: %s is off by %.1e, more than %.0e, and no model is written; is it of this"
                    + " checkpoint, size, window and windowRule?",
                reference,
                e.getKey(),
                e.getValue(),
                Verification.TOLERANCE));
      }
    }
    out.println("  as the reference has it");
  }
}
