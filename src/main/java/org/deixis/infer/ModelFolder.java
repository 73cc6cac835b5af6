package org.deixis.infer;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.deixis.backend.Backend;
import org.deixis.core.AtomicWrite;
import org.deixis.core.InputException;
import org.deixis.core.Reason;
import org.deixis.core.Shape;
import org.deixis.data.TextTokenizer;
import org.deixis.io.HostTensor;
import org.deixis.io.Safetensors;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GuideModel;
import org.deixis.nn.CheckpointSource;

/**
 * A trained model in a folder: {@code config.json}, {@code model.safetensors} (fp32, PyTorch's
 * names) and {@code tokenizer.json}.
 */
public record ModelFolder(GuideModel model, TextTokenizer tokenizer) implements AutoCloseable {
  public static final String CONFIG = "config.json";
  public static final String WEIGHTS = "model.safetensors";
  public static final String TOKENIZER = "tokenizer.json";

  /**
   * Loads a model onto a backend, in eval mode.
   *
   * @throws InputException when a file is missing or damaged, or they do not belong together
   */
  public static ModelFolder load(Path folder, Backend backend) {
    for (String name : List.of(CONFIG, WEIGHTS, TOKENIZER)) {
      if (!Files.isRegularFile(folder.resolve(name))) {
        throw new InputException(
            "%s: no %s there; give the folder of a trained model".formatted(folder, name));
      }
    }
    GresConfig config = GresConfig.load(folder.resolve(CONFIG));
    TextTokenizer tokenizer = TextTokenizer.load(folder.resolve(TOKENIZER));
    try {
      checkVocabulary(folder.toString(), config, tokenizer);
      return new ModelFolder(loadModel(folder.resolve(WEIGHTS), config, backend), tokenizer);
    } catch (RuntimeException e) {
      tokenizer.close();
      throw e;
    }
  }

  /**
   * Checks that the tokenizer's ids fit the model's word table.
   *
   * @param where the name of what they come from, for messages
   */
  public static void checkVocabulary(String where, GresConfig config, TextTokenizer tokenizer) {
    if (tokenizer.vocabSize() > config.text().vocab()
        || tokenizer.padId() != config.text().padId()) {
      throw new InputException(
          "%s: the tokenizer has %d words and pads with %d, the model %d and %d; take the model's own"
              .formatted(
                  where,
                  tokenizer.vocabSize(),
                  tokenizer.padId(),
                  config.text().vocab(),
                  config.text().padId()));
    }
  }

  /** A model of that configuration with the weights of a safetensors file. */
  public static GuideModel loadModel(Path weights, GresConfig config, Backend backend) {
    CheckpointSource source = source(weights, backend);
    try {
      return new GuideModel(source, config);
    } catch (RuntimeException e) {
      source.abandon();
      throw e;
    }
  }

  /** The tensors of a safetensors file as a source of parameters. */
  public static CheckpointSource source(Path weights, Backend backend) {
    Map<String, HostTensor> tensors = Safetensors.read(weights).tensors();
    return new CheckpointSource(
        backend,
        weights.toString(),
        new CheckpointSource.Tensors() {
          @Override
          public Shape shape(String name) {
            HostTensor t = tensors.get(name);
            return t == null ? null : t.shape();
          }

          @Override
          public float[] values(String name) {
            HostTensor t = tensors.get(name);
            if (!t.dtype().isFloating()) {
              throw new InputException(
                  "%s: parameter %s is %s; it must be floating"
                      .formatted(weights, name, t.dtype()));
            }
            return t.toFloats();
          }
        });
  }

  /**
   * Saves a model: the folder appears whole, in place of one of that name, or not at all.
   *
   * @throws InputException when it cannot be written; what was there before stays
   */
  public static void save(Path folder, GuideModel model, TextTokenizer tokenizer) {
    Path target = folder.toAbsolutePath();
    if (Files.exists(target) && !Files.isRegularFile(target.resolve(CONFIG)) && !isEmpty(target)) {
      throw new InputException(
          folder + ": holds something other than a model; choose another folder");
    }
    Path fresh = null;
    try {
      Files.createDirectories(target.getParent());
      fresh = Files.createDirectory(AtomicWrite.temporaryFor(target));
      Files.write(fresh.resolve(CONFIG), model.config().toJson());
      Files.write(fresh.resolve(TOKENIZER), tokenizer.toJson());
      List<HostTensor> tensors = new ArrayList<>();
      model
          .parameters()
          .forEach((name, p) -> tensors.add(HostTensor.ofFloats(name, p.shape(), p.toFloats())));
      Safetensors.write(fresh.resolve(WEIGHTS), tensors, Map.of("format", "pt"));
      swap(fresh, target);
    } catch (IOException e) {
      throw new InputException(folder + ": cannot be written: " + Reason.of(e), e);
    } finally {
      if (fresh != null) {
        delete(fresh);
      }
    }
  }

  private static boolean isEmpty(Path folder) {
    if (!Files.isDirectory(folder)) {
      return false;
    }
    try (Stream<Path> files = Files.list(folder)) {
      return files.findAny().isEmpty();
    } catch (IOException e) {
      throw new InputException(folder + ": cannot be read: " + Reason.of(e), e);
    }
  }

  /** Two renames, as no system replaces a folder that is not empty in one. */
  private static void swap(Path fresh, Path target) throws IOException {
    if (!Files.exists(target)) {
      Files.move(fresh, target);
      return;
    }
    Path old = Files.createDirectory(AtomicWrite.temporaryFor(target));
    Path kept = old.resolve("model");
    Files.move(target, kept);
    try {
      Files.move(fresh, target);
    } catch (IOException e) {
      Files.move(kept, target);
      throw e;
    } finally {
      delete(old);
    }
  }

  private static void delete(Path folder) {
    if (!Files.exists(folder)) {
      return;
    }
    try (Stream<Path> files = Files.walk(folder)) {
      for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
        Files.delete(file);
      }
    } catch (IOException e) {
      throw new InputException(folder + ": cannot be removed: " + Reason.of(e), e);
    }
  }

  @Override
  public void close() {
    model.close();
    tokenizer.close();
  }
}
